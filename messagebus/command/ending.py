"""How a command ends early: by an error that people read, by Ctrl-C, or because nobody reads on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..errors import BackendUnavailable, MessageBusError, PublishRefused


class Failed(click.ClickException):
    """What was asked for was understood, and did not succeed: exit code 1."""

    exit_code = 1


class CannotDo(click.ClickException):
    """Nobody answers, or what was given is wrong: exit code 2."""

    exit_code = 2


@contextmanager
def ended_as_the_shell_expects() -> Iterator[None]:
    """Errors of the bus become a line and an exit code. Ctrl-C ends the process by its signal (130 in a shell), so that
    a loop around it ends, too. So does a reader that has gone, such as ``| head`` (141)."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        end_by(signal.SIGINT)
    except BrokenPipeError:
        end_by(signal.SIGPIPE)
    except BackendUnavailable as error:
        raise CannotDo(str(error)) from None
    except PublishRefused as error:
        raise Failed(str(error)) from None
    except MessageBusError as error:
        raise CannotDo(str(error)) from None


def end_by(number: signal.Signals) -> None:
    """End this process as if it knew nothing of the signal."""
    signal.signal(number, signal.SIG_DFL)
    # What is still buffered has nobody to go to, or was not asked for any more.
    os.kill(os.getpid(), number)
