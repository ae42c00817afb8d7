"""A chat on the bus: the example to read first. ``make demo`` serves it, or ``messagebus serve demo.app:app``."""
