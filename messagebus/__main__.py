"""``python -m messagebus``."""

from .command.cli import main

main(prog_name="python -m messagebus")
