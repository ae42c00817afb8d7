"""How a command ends early: by an error that people read, by Ctrl-C, or because nobody reads on."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from ..errors import BackendUnavailable, MessageBusError, NotDurable, PublishRefused


class Failed(click.ClickException):
    """What was asked for was understood, and did not succeed: exit code 1."""

    exit_code = 1


class Incomplete(Failed):
    """What was printed is right, and not all."""

    def __init__(self, away: Iterable[int]) -> None:
        """``away``: the partitions of the store that are lacking."""
        numbers = ", ".join(map(str, sorted({*away})))
        super().__init__(f"this is not all: these partitions of the store give no answer: {numbers}")


class CannotDo(click.ClickException):
    """Nobody answers, or what was given is wrong: exit code 2."""

    exit_code = 2


class NoAnswer(CannotDo):
    """Nobody answers now; that may change."""


class NotSafe(Failed):
    """It is stored, but not in as many replicas as were asked for."""


class NotTaken(CannotDo):
    """A message is too large for the bus; another one may not be."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Why what a command prints cannot be written."""


@contextmanager
def ended_as_the_shell_expects() -> Iterator[None]:
    """Errors of the bus become a line and an exit code. Ctrl-C ends the process by its signal (130 in a shell), so that
    a loop around it ends, too. So does a reader that has gone, such as ``| head`` (141)."""
    # Where a shell has closed one of them (>&-), Python has none.
    sys.stdin, sys.stdout, sys.stderr = (
        stream or open(os.devnull, mode)  # noqa: SIM115 - for the life of the process
        for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    )
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        end_by(signal.SIGINT)
    except BrokenPipeError:
        end_by(signal.SIGPIPE)
    except MessageBusError as error:
        raise as_ending(error) from None
    except OSError as error:
        if error.errno not in _FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python will try once more to write what is left
        raise Failed(str(error)) from None


def as_ending(error: MessageBusError) -> click.ClickException:
    """What an error of the bus is to a shell."""
    if isinstance(error, BackendUnavailable):
        return NoAnswer(str(error))
    if isinstance(error, NotDurable):
        return NotSafe(str(error))
    return (Failed if isinstance(error, PublishRefused) else CannotDo)(str(error))


def end_by(number: signal.Signals) -> None:
    """End this process as if it knew nothing of the signal."""
    signal.signal(number, signal.SIG_DFL)
    # What is still buffered has nobody to go to, or was not asked for any more.
    os.kill(os.getpid(), number)
