"""``python -m messagebus``."""

from .serve.cli import main

main(prog_name="python -m messagebus")
