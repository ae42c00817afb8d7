"""What a socket on ``/cable`` says of the commands of its client."""

from __future__ import annotations

from typing import Any

from ..http.command import CommandError
from ..http.framed_subscriber import OPEN, FramedSubscriber
from ..http.refusals import error_object
from ..message import encode_json
from ..transports.websocket import text_frame
from .commands import Said


class CableSocket(FramedSubscriber):
    """See the module. In the reactor's loop."""

    __slots__ = ()

    def _answer(self, said: Said, result: bytes | None, error: CommandError | None) -> None:
        if error is not None:
            self._fail(error, said)

    def _fail(self, error: CommandError, said: Said | None) -> None:
        if error.limit is not None:
            self._node.hub.refused.count(error.limit)
        if said is not None and said.command == "subscribe":
            self._reject(said.identifier, error)
            return
        # ActionCable's client takes it for a message to whom the identifier names, and fails where there is none: it is
        # to nobody.
        about = {"command": said.command, "identifier": said.identifier} if said is not None else {}
        self._say(type="error", identifier="", error={**_object(error), **about})

    def _reject(self, identifier: str, error: CommandError | None) -> None:
        told: dict[str, Any] = {"type": "reject_subscription", "identifier": identifier}
        if error is not None:
            told["error"] = _object(error)
        self._say(**told)

    def _say(self, **told: Any) -> None:
        if self.state in OPEN:
            self.put(text_frame(encode_json(told)))


def _object(error: CommandError) -> dict[str, Any]:
    return error_object(error.code, str(error), error.field, error.retry_after)
