"""OpenTelemetry spans of a message: its publish, its delivery in each process, and each Python function that gets it.

Only for programs that have set OpenTelemetry up. Nothing here imports its API before the program has: who has not
imported it cannot have set it up. What goes wrong in an exporter or a sampler is logged, and no message is lost by it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from .message import MAX_TRACE, Ids, Message
from .names import split_name

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger("messagebus.tracing")


def is_on() -> bool:
    """Whether the program has set OpenTelemetry up. Where it is not even imported, this costs a look into a dict."""
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class PublishSpan:
    """The span of one publish, of one message or of many. From the check of the arguments to the store's answer."""

    __slots__ = ("_span", "trace")

    def __init__(self, span: Span, trace: dict[str, str]) -> None:
        self._span = span
        self.trace = trace
        """What its messages carry."""

    @classmethod
    def begin(cls, incoming: Mapping[str, str] | None = None) -> PublishSpan | None:
        """A span below the caller's, or where that has none below the one that ``incoming`` names, the fields of W3C
        Trace Context that a request has brought; ``None`` where the sampler does not want it. Safe from any thread."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        try:
            context = _context_of_request(incoming) if incoming else None
            attributes = _operation("publish", "send")
            span = _tracer().start_span("publish", context, SpanKind.PRODUCER, attributes)
            if not span.get_span_context().trace_flags.sampled:
                return None
            trace: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(trace, set_span_in_context(span))
        except Exception:
            logger.exception("the span of a publish failed")
            return None
        return cls(span, trace)

    @contextmanager
    def running(self, names: Iterable[str]) -> Iterator[None]:
        """Make it the current span, and end it. ``names``: what the store calls each message's channel. An exception is
        recorded."""
        from opentelemetry.trace import use_span

        channels = [split_name(name)[0] for name in names]
        if len({*channels}) == 1:
            self._span.set_attribute("messaging.destination.name", channels[0])
        if len(channels) != 1:
            self._span.set_attribute("messaging.batch.message_count", len(channels))
        with use_span(self._span, end_on_exit=True):
            yield

    def published(self, given: Sequence[Ids | None]) -> None:
        """The store's answer; no ids: they wait for a store that is away."""
        if None in given:
            self._span.set_attribute("messagebus.queued", True)
        elif len(given) == 1 and (ids := given[0]) is not None:
            self._span.set_attribute("messaging.message.id", str(ids.message_id))
            self._span.set_attribute("messagebus.global_id", ids.global_id)


def begin_deliveries(messages: Sequence[Message], subscribers: int, began: int) -> list[Span]:
    """The spans of messages of one channel that were put out to so many subscribers; ``began``: when, in nanoseconds of
    Unix time. One for those that follow each other and are of one publish. The caller ends them."""
    from opentelemetry.trace import SpanKind

    spans = []
    for trace, group in groupby(messages, lambda message: message.trace):
        try:
            context = None if trace is None else _context_of(trace)
            if context is None:
                continue
            run = [*group]
            attributes = _operation("deliver") | _of_message(run[0]) | {"messagebus.subscribers": subscribers}
            if len(run) > 1:
                attributes["messaging.batch.message_count"] = len(run)
            spans.append(
                _tracer().start_span(
                    "deliver", context, SpanKind.CONSUMER, attributes, start_time=began, record_exception=False
                )
            )
        except Exception:
            logger.exception("the span of a delivery failed")
    return spans


def end(spans: Sequence[Span]) -> None:
    """End spans now."""
    now = time.time_ns()
    for span in spans:
        try:
            span.end(now)
        except Exception:
            logger.exception("the span of a delivery failed")


@contextmanager
def processing(message: Message) -> Iterator[None]:
    """Make a function's work on a message a span below its publish, where that has one. The span is the current one in
    this thread, so that the function's own are below it."""
    span = _begin_processing(message) if is_on() else None
    if span is None:
        yield
        return
    from opentelemetry.trace import use_span

    with use_span(span, end_on_exit=True):
        yield


def _begin_processing(message: Message) -> Span | None:
    from opentelemetry.trace import SpanKind

    try:
        context = None if message.trace is None else _context_of(message.trace)
        if context is None:
            return None
        attributes = _operation("process", "process") | _of_message(message)
        return _tracer().start_span("process", context, SpanKind.CONSUMER, attributes)
    except Exception:
        logger.exception("the span of a callback failed")
        return None


def _tracer() -> Tracer:
    from opentelemetry import trace

    return trace.get_tracer("messagebus")


def _context_of_request(incoming: Mapping[str, str]) -> Context | None:
    """What a request names, if no span is current: where the app's own instrumentation has begun one, that is the
    request's already. Malformed fields name nothing, as W3C Trace Context says."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if get_current_span().get_span_context().is_valid:
        return None
    # One that is longer could not be carried with the message.
    fields = {name: value for name, value in incoming.items() if len(value) <= MAX_TRACE}
    return TraceContextTextMapPropagator().extract(fields)


def _context_of(trace: dict[str, str]) -> Context | None:
    """The publish that a message names, if it was sampled. Other programs may have written anything there."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(trace)
    publish = get_current_span(context).get_span_context()
    return context if publish.is_valid and publish.trace_flags.sampled else None


def _operation(name: str, kind: str | None = None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"messaging.system": "messagebus", "messaging.operation.name": name}
    return attributes if kind is None else attributes | {"messaging.operation.type": kind}


def _of_message(message: Message) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.destination.name": message.channel,
        "messaging.message.id": str(message.message_id),
        "messagebus.global_id": message.global_id,
    }
    return attributes if message.site_id is None else attributes | {"messagebus.site_id": message.site_id}
