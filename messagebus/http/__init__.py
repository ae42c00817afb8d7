"""From a WSGI request to an answer, complete or streaming. No Flask."""
