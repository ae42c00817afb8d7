"""One command of a client: what it is, who has sent it, and how it is refused. No frames, no sockets."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from ..errors import BackendUnavailable, InvalidData, InvalidOption, MessageTooLarge, NotDurable, PublishRefused
from ..hub.node import Node
from ..hub.subscriber import Identity, Subscriber
from .authorization import Handshake
from .refusals import RETRY_SECONDS, limit_of
from .requested_channels import CODES, ChannelRefused

logger = logging.getLogger("messagebus.http")

_CODES: dict[type[Exception], str] = {
    **CODES,
    BackendUnavailable: "unavailable",
    InvalidData: "invalid_data",
    NotDurable: "not_durable",
}


class CommandError(Exception):
    """A command is refused; ``code`` is for programs."""

    def __init__(
        self,
        code: str,
        message: str,
        limit: str | None = None,
        *,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """``limit``: the option that it has met, if it is one, to be counted. ``field``: the part that is wrong, if
        there is one. ``retry_after``: seconds after which it may succeed."""
        super().__init__(message)
        self.code = code
        self.limit = limit
        self.field = field
        self.retry_after = retry_after

    @classmethod
    def of(cls, error: BaseException) -> CommandError:
        """The answer for an error; an internal error is logged."""
        if isinstance(error, CommandError):
            return error
        if isinstance(error, PublishRefused) or (isinstance(error, InvalidOption) and error.option == "url"):
            # The log tells the operator what to fix; the client only learns that it failed.
            logger.error("the store refused what a client publishes: %s", error)
            return CommandError("internal", "the store refused the message")
        if isinstance(error, ChannelRefused):
            return CommandError(error.refusal.code, str(error), limit_of(error.refusal))
        if isinstance(error, HTTPException) and error.code is not None and error.code < 500:  # abort() of a hook
            return CommandError("forbidden", error.description or error.name)
        for kind in type(error).__mro__:
            if kind in _CODES:
                limit = error.name if isinstance(error, MessageTooLarge) else None
                wait = RETRY_SECONDS if isinstance(error, BackendUnavailable) else None
                return CommandError(_CODES[kind], str(error), limit, field=limit, retry_after=wait)
        logger.error("a command failed", exc_info=error)
        return CommandError("internal", type(error).__name__)


class Caller(NamedTuple):
    """The client that sent a command."""

    node: Node
    identity: Identity
    site_id: str | None
    address: str = ""
    """Where the request came from; empty: not known."""
    subscriber: Subscriber | None = None
    """The open connection that the command came on, if there is one."""
    handshake: Handshake | None = None
    """That of the open connection; ``None``: there is none, or the app has no hooks."""
    takes_refusals: bool = False
    """Whether it accepts refusals of single channels."""
    request: Request | None = None
    """The request that brings the command by itself."""

    def hook_request(self) -> AbstractContextManager[Request]:
        """The request for the app's hooks, in the context in which they expect it.

        Raises:
            CommandError: The connection is older than the first hook.
        """
        if self.request is not None:
            return nullcontext(self.request)
        if self.handshake is not None:
            return self.handshake.entered()
        raise CommandError("forbidden", "this connection began before the server had a hook for it; connect again")


class Command(ABC):
    """One command of a client."""

    verb: ClassVar[str]
    needs_subscriber: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        """Check the command, without effects. ``value``: the verb's value; ``command``: the whole object.

        Raises:
            CommandError, InvalidChannel, ChannelRefused: The command is refused.
        """

    def perform_at_once(self) -> Any:
        """The result, if it is available without waiting; otherwise ``None``. Never blocks."""
        return None

    def start(self, answer: Callable[[dict[str, Any]], object], fail: Callable[[CommandError], object]) -> bool:
        """Carry it out without holding up the client's next command: one of the two is called in the loop when it is
        done. ``False``: this command does not do so. Never blocks."""
        return False

    @abstractmethod
    def perform(self) -> Any:
        """The result. May block and raise."""

    def complete(self, result: Any, answer: Callable[[dict[str, Any]], None], done: Callable[[], None]) -> None:
        """In the loop: send the ``answer``, and tell when the client's next command may follow."""
        answer(result)
        done()
