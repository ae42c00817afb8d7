"""What publishes and reads: values in, ids out. All that a process needs which does not listen: no loop, no feed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import InvalidOption
from ..message import Ids, encode_data, encode_envelope
from ..options import Options
from ..stores import Publication, Store, open_store
from .outage_queue import PublishQueue

Targets = tuple[Iterable[Any] | None, Iterable[Any] | None, Iterable[str] | None]
"""User ids, group ids and client ids that a message is for."""
EVERYBODY: Targets = (None, None, None)


class Publisher:
    """A store and the queue before it. Its methods are safe from any thread or greenlet.

    Made when first needed and anew in a forked child, see ``lifecycle``.

    Raises:
        InvalidOption: The store's URL is malformed.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store: Store = open_store(options)
        self.queue = PublishQueue(self.store, options.publish_queue_size)

    def publish(
        self,
        name: str,
        data: Any,
        targets: Targets = EVERYBODY,
        max_backlog_size: int | None = None,
        max_backlog_age: int | None = None,
        queue_in_memory: bool = True,
    ) -> Ids | None:
        """See ``Bus.publish``; ``name`` is the stored name of a channel that was checked."""
        message = self._publication(name, data, targets, max_backlog_size, max_backlog_age)
        return self.queue.publish_many((message,), queue_in_memory=queue_in_memory)[0]

    def publish_many(
        self,
        messages: Iterable[tuple[str, Any]],
        targets: Targets = EVERYBODY,
        max_backlog_size: int | None = None,
        max_backlog_age: int | None = None,
        queue_in_memory: bool = True,
    ) -> Sequence[Ids | None]:
        """See ``Bus.publish_many``; ``messages`` have the stored names of channels that were checked."""
        # All of them before the first is published: one of them may be none.
        publications = [
            self._publication(name, data, targets, max_backlog_size, max_backlog_age) for name, data in messages
        ]
        return self.queue.publish_many(publications, queue_in_memory=queue_in_memory)

    def _publication(
        self, name: str, data: Any, targets: Targets, max_backlog_size: int | None, max_backlog_age: int | None
    ) -> Publication:
        options = self.options
        if max_backlog_size is None:
            max_backlog_size = options.max_backlog_size
        elif max_backlog_size < 1:
            raise InvalidOption("max_backlog_size", f"expected at least 1, not {max_backlog_size!r}")
        if max_backlog_age is None:
            max_backlog_age = options.max_backlog_age
        elif max_backlog_age < 1:
            raise InvalidOption("max_backlog_age", f"expected at least 1, not {max_backlog_age!r}")
        raw = encode_data(data, options.max_message_size)
        envelope = encode_envelope(raw, *targets, codec=options.transport_codec)
        return Publication(name, envelope, max_backlog_size, max_backlog_age)

    def close(self) -> None:
        """Let go of the store. The queue is closed before it, so that what waits is still written and heard."""
        self.store.close()

    def after_fork(self) -> None:
        """In a child: let go of what is the parent's."""
        self.queue.after_fork()
        self.store.after_fork()
