"""A loop over the messages of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from .mailbox import Mailbox
from .types import ClientMessage


class Listening(Iterator[ClientMessage]):
    """The result of :meth:`Client.listen`: an iterator, and a context manager that ends it.

    It ends with its loop. If you keep it longer, :meth:`close` or ``with`` ends it. One thread may iterate;
    :meth:`close` is safe from any thread."""

    def __init__(self, mailbox: Mailbox, timeout: float, leave: Callable[[], None]) -> None:
        """``leave``: called once when it ends."""
        self._mailbox = mailbox
        self._timeout = timeout
        self._leave: Callable[[], None] | None = leave

    def __next__(self) -> ClientMessage:
        message = self._mailbox.take(self._timeout)
        if message is None:
            self.close()
            raise StopIteration
        return message

    def close(self) -> None:
        """End the subscriptions; may be repeated."""
        leave, self._leave = self._leave, None
        if leave is not None:
            self._mailbox.close()
            leave()

    def __enter__(self) -> Listening:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
