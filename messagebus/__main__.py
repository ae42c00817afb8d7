"""``python -m messagebus``."""

from .cli import main

main(prog_name="python -m messagebus")
