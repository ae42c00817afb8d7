"""``messagebus doctor``: what is between a browser and the bus, and below the bus, and what to change about it."""
