"""The group of all commands."""

from __future__ import annotations

from ..serve.cli import main
from .background import restart, start, stop
from .doctor.cli import doctor

for each in (start, stop, restart, doctor):
    main.add_command(each)

__all__ = ["main"]
