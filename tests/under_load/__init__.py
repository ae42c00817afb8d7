"""Two servers behind nginx on one Redis, many clients that publish, and everything that may break between them."""
