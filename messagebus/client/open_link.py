"""A link that is open or being opened, and what it is to bring. No waiting."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wire import NEW_ONLY
from .channels import Following
from .links import TransportLink
from .moving import Move
from .transport_selector import Attempt


@dataclass(slots=True)
class OpenLink:
    """See the module. Times are by the client's clock."""

    link: TransportLink
    attempt: Attempt
    move: Move
    asked: Following
    """What it brings. Not in it: channels whose subscribe the server has not answered, whose messages would still be
    those of an earlier subscription."""
    awaited: Following = field(default_factory=dict)
    """What it was asked for besides, and the server has not answered."""
    _counted: int = 0

    @property
    def asked_in_all(self) -> Following:
        return {**self.asked, **self.awaited}

    def silent_at(self, heartbeat_timeout: float) -> float:
        """When it counts as broken unless something comes."""
        if self.attempt.opened or self.link.begun:  # bytes get through, if slowly
            return self.link.heard + heartbeat_timeout
        return self.attempt.since + self.attempt.timeout

    def is_leaving(self, now: float) -> bool:
        """Whether its server is about to end and the next link is due. Not before this one has said where each channel
        stands: what came in between would be lost."""
        if self.move.at is None or now < self.move.at:
            return False
        return all(channel is None or channel.position != NEW_ONLY for channel in self.asked_in_all.values())

    def take_bytes(self) -> int:
        """Bytes that it has received since the last call."""
        new = self.link.received - self._counted
        self._counted += new
        return new
