"""The subscriptions of a session that comes back: entered again before its client is welcomed, so that the welcome says
which of them it has. They begin with the history that the client asks for then."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..loop.reactor import Reactor

SECONDS = 5.0
"""How long classes may take for it, all together. The client enters what is not there by then itself."""
HISTORY_SECONDS = 5.0
"""How long a client may take to say where it stands; after that it gets what is new since it was welcomed."""


class Restoring:
    """See the module. In the reactor's loop only."""

    def __init__(
        self,
        reactor: Reactor,
        identifiers: Iterable[str],
        welcome: Callable[[list[str], list[str]], object],
        begin: Callable[[], object],
    ) -> None:
        """``welcome``: called once, with the identifiers that are there, and those that did not come in time.
        ``begin``: called when no history was asked for in time."""
        self._reactor = reactor
        self._waiting = dict.fromkeys(identifiers)
        self._restored: list[str] = []
        self._welcome = welcome
        self._begin = begin
        self._is_over = False
        self.tick = 0
        reactor.set_deadline(self, SECONDS)

    @property
    def is_under_way(self) -> bool:
        """Whether the client was not welcomed yet."""
        return not self._is_over

    def waits_for(self, identifier: str) -> bool:
        return identifier in self._waiting

    def settle(self, identifier: str, is_there: bool) -> None:
        """A subscription is there again, or was refused."""
        if identifier in self._waiting:
            del self._waiting[identifier]
            if is_there:
                self._restored.append(identifier)
            if not self._waiting:
                self._finish()

    def end(self) -> None:
        """The connection has ended."""
        self._is_over = True
        self._reactor.clear_deadline(self)

    def on_deadline(self) -> None:
        if self._is_over:
            self._begin()
        else:
            self._finish()

    def _finish(self) -> None:
        if not self._is_over:
            self._is_over = True
            late, self._waiting = [*self._waiting], {}
            self._reactor.set_deadline(self, HISTORY_SECONDS)
            self._welcome(self._restored, late)
