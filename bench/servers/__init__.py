"""Programs that the bench starts on the server's core."""
