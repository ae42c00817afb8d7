"""The group of all commands."""

from __future__ import annotations

from ..serve.cli import main
from .doctor.cli import doctor

main.add_command(doctor)

__all__ = ["main"]
