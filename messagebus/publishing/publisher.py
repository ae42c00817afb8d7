"""Publishing and reading: values in, ids out. A process that does not listen needs nothing else: no loop, no feed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .. import tracing
from ..errors import BackendUnavailable, InvalidOption, NotDurable
from ..message import Ids
from ..options import Options, check_replicas
from ..stores import Store, open_store
from .arguments import CheckedPublish, Dumps, PublishOptions
from .publish_queue import PublishQueue
from .transient import tellings

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Publisher:
    """A store and the queue before it. Its methods are safe from any thread or greenlet.

    Made on first use, and again in a forked child, see ``lifecycle``. ``dumps``: encodes data that is no JSON value.

    Raises:
        InvalidOption: The store's URL is malformed, or the store cannot do what the options ask for
            (``durable`` without replicas, ``wildcard_subscriptions`` over partitions).
    """

    def __init__(self, options: Options, dumps: Dumps | None = None) -> None:
        check_replicas(options.durable, options.url)
        self.options = options
        self.store: Store = open_store(options)
        if options.wildcard_subscriptions and self.store.partitions > 1:
            number = self.store.partitions
            raise InvalidOption(
                "wildcard_subscriptions",
                f"patterns need a store that orders the messages of all channels; this one has {number} partitions",
            )
        self.queue = PublishQueue(self.store, options.publish_queue_size)
        self.dumps = dumps
        self.published = 0
        """Messages that this process has published since it began, the waiting ones as well."""

    def check(
        self, messages: Iterable[Any], incoming: Mapping[str, str] | None = None, **options: Unpack[PublishOptions]
    ) -> CheckedPublish:
        """See :class:`CheckedPublish`; for ``incoming``, ``PublishSpan.begin``."""
        span = tracing.PublishSpan.begin(incoming) if self.options.tracing and tracing.is_on() else None
        return CheckedPublish(messages, self.options, self.dumps, span, **options)

    def publish(self, request: CheckedPublish) -> list[Ids | None]:
        """See ``PublishQueue.publish_many``."""
        if request.span is not None:
            return self._publish_traced(request, request.span)
        if request.transient:
            return self._tell(request)
        try:
            given = self.queue.publish_many(
                request.publications,
                queue_in_memory=request.queue_in_memory,
                idempotency_key=request.idempotency_key,
                durable=request.durable,
            )
        except NotDurable as error:
            self.published += len(error.ids)
            raise
        self.published += len(given)
        return given

    def _tell(self, request: CheckedPublish) -> list[Ids | None]:
        """Tell every worker of transient messages. While the store is away they are lost, as it is their nature."""
        try:
            for publication in request.publications:
                for text in tellings(publication.name, publication.envelope, request.key):
                    self.store.announce(text)
        except BackendUnavailable:
            if not request.queue_in_memory:
                raise
        self.published += len(request.publications)
        return [None] * len(request.publications)

    def _publish_traced(self, request: CheckedPublish, span: tracing.PublishSpan) -> list[Ids | None]:
        request.span = None  # it is this call's
        with span.running([publication.name for publication in request.publications]):
            given = self.publish(request)
            span.published(given)
        return given

    def publish_one(self, channel: str, data: Any, **options: Unpack[PublishOptions]) -> Ids | None:
        """See ``Bus.publish_ids``."""
        return self.publish(self.check(((channel, data),), **options))[0]

    def close(self) -> None:
        """Close the store. The queue is closed before, so waiting messages are still written and delivered."""
        self.store.close()

    def after_fork(self) -> None:
        """In a child: drop what belongs to the parent."""
        self.queue.after_fork()
        self.store.after_fork()
