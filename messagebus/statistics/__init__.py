"""What a bus does, counted: by each worker, and over all of them."""
