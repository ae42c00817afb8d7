"""From a WSGI request to an answer or a held response. No Flask."""
