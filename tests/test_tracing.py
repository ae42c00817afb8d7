"""OpenTelemetry spans from a publish to its deliveries, and nothing where the program has not set OpenTelemetry up."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from werkzeug.serving import make_server

from messagebus import Bus
from messagebus.errors import BackendUnavailable
from messagebus.message import Ids, Message, decode_message, decode_stored, encode_envelope, encode_stored, memory_of

from .clients import EventSource
from .eventually import eventually
from .test_dispatch import World

PUBLISH = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PUBLISH[:-2] + "00"


class Spans:
    """The spans that have ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = eventually(lambda: self.named(name))
        return span


def trace_with(monkeypatch: pytest.MonkeyPatch, provider: TracerProvider) -> Spans:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # In place of set_tracer_provider, which a process takes once.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return Spans(exporter)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return trace_with(monkeypatch, TracerProvider())


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://")
    yield bus
    bus.close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.parent is not None
    assert child.context is not None
    assert parent.context is not None
    return (child.parent.span_id, child.context.trace_id) == (parent.context.span_id, parent.context.trace_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- publishing ---


def test_a_publish_is_a_span_below_that_of_its_caller(bus: Bus, spans: Spans) -> None:
    with trace.get_tracer("app").start_as_current_span("order"):
        bus.publish("/chat", 1, site_id="one")
    publish = spans.one("publish")
    assert is_below(publish, spans.one("order"))
    assert publish.kind is SpanKind.PRODUCER
    assert attributes(publish) == {
        "messaging.system": "messagebus",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "/chat",
        "messaging.message.id": "1",
        "messagebus.global_id": 1,
    }


def test_many_messages_that_are_published_at_once_are_one_span(bus: Bus, spans: Spans) -> None:
    bus.publish_many([("/a", 1), ("/b", 2), ("/b", 3)])
    found = attributes(spans.one("publish"))
    assert found["messaging.batch.message_count"] == 3
    assert "messaging.destination.name" not in found
    traces = [message.trace for name in ("/a", "/b") for message in bus.backlog(name)]
    assert traces[0] is not None
    assert traces == [traces[0]] * 3


def test_a_publish_that_fails_is_a_span_with_the_error(bus: Bus, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise BackendUnavailable("gone for this test")

    monkeypatch.setattr(bus._publisher_now().store, "publish_many", fail)
    with pytest.raises(BackendUnavailable):
        bus.publish("/chat", 1, queue_in_memory=False)
    publish = spans.one("publish")
    assert publish.status.status_code is StatusCode.ERROR
    assert [event.name for event in publish.events] == ["exception"]


def test_clients_are_not_told_of_traces(bus: Bus, spans: Spans) -> None:
    app = flask.Flask(__name__)
    bus.init_app(app)
    bus.publish("/chat", "x")
    [message] = bus.backlog("/chat")
    assert message.trace is not None
    body = app.test_client().post("/message-bus/abc/poll?dlp=t", data={"/chat": "0"}).text
    assert [*json.loads(body)[0]] == ["global_id", "message_id", "channel", "data"]
    assert message.trace["traceparent"] not in body


# --- publishing over HTTP ---

STATE = "vendor=1,other=2"


def post(bus: Bus, path: str = "channels/chat", **headers: str) -> None:
    """Publish as another program does. The client is the program's own: nothing of this thread's context reaches it."""
    app = flask.Flask(__name__)
    bus.init_app(app)
    names = {"Content-Type": "application/json", **headers}
    response = app.test_client().post(f"/message-bus/{path}", data='{"channel":"/chat","data":1}', headers=names)
    assert response.status_code < 300, response.text


@pytest.fixture
def open_bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", http_publishing=True, anonymous_publish=True, client_publish=("/chat",))
    yield bus
    bus.close()


def parent_of(span: ReadableSpan) -> str | None:
    """As a ``traceparent``, in the span's own trace."""
    assert span.context is not None
    parent = span.parent
    return None if parent is None else f"00-{span.context.trace_id:032x}-{parent.span_id:016x}-01"


@pytest.mark.parametrize("path", ["channels/chat", "publish?channel=/chat"])
def test_a_request_that_publishes_continues_the_trace_that_it_brings(open_bus: Bus, spans: Spans, path: str) -> None:
    post(open_bus, path, traceparent=PUBLISH, tracestate=STATE)
    publish = spans.one("publish")
    assert parent_of(publish) == PUBLISH
    [message] = open_bus.backlog("/chat")
    assert message.trace is not None
    assert message.trace["tracestate"] == STATE
    assert message.trace["traceparent"].split("-")[1] == PUBLISH.split("-")[1]


@pytest.mark.parametrize(
    "malformed",
    [
        "x",
        PUBLISH.upper(),
        PUBLISH + "-more",
        f"{PUBLISH},{PUBLISH}",
        "ff" + PUBLISH[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        PUBLISH + " " * 512,
    ],
)
def test_a_malformed_traceparent_begins_a_trace_of_its_own_and_its_state_is_not_read(
    open_bus: Bus, spans: Spans, malformed: str
) -> None:
    post(open_bus, traceparent=malformed, tracestate=STATE)
    publish = spans.one("publish")
    assert publish.parent is None
    assert publish.context is not None
    assert not publish.context.trace_state


@pytest.mark.parametrize("state", ["=", "a b", "x=" + "y" * 511])
def test_a_malformed_tracestate_is_left_out_alone(open_bus: Bus, spans: Spans, state: str) -> None:
    post(open_bus, traceparent=PUBLISH, tracestate=state)
    publish = spans.one("publish")
    assert parent_of(publish) == PUBLISH
    assert publish.context is not None
    assert not publish.context.trace_state


def test_a_traceparent_of_a_newer_version_is_read_as_far_as_it_is_known(open_bus: Bus, spans: Spans) -> None:
    post(open_bus, traceparent=f"01{PUBLISH[2:]}-more")
    assert parent_of(spans.one("publish")) == PUBLISH


def test_the_span_that_the_app_has_begun_for_the_request_comes_first(open_bus: Bus, spans: Spans) -> None:
    with trace.get_tracer("app").start_as_current_span("request"):
        post(open_bus, traceparent=PUBLISH)
    assert is_below(spans.one("publish"), spans.one("request"))


def test_what_was_not_sampled_where_it_began_is_not_here(open_bus: Bus, spans: Spans) -> None:
    post(open_bus, traceparent=UNSAMPLED)
    assert not spans.named("publish")
    assert [message.trace for message in open_bus.backlog("/chat")] == [None]


def test_a_page_names_no_span_for_what_it_publishes(open_bus: Bus, spans: Spans) -> None:
    post(open_bus, "abc/publish", traceparent=PUBLISH)
    assert spans.one("publish").parent is None


# --- what messages carry ---


def test_a_trace_comes_back_from_the_envelope_and_other_fields_are_as_ever() -> None:
    carried = {"traceparent": PUBLISH, "tracestate": "vendor=1"}
    envelope = encode_envelope(b"1", user_ids=[7], exclude_client_ids=["c"], trace=carried)
    assert envelope.startswith(b'{"data":1,"user_ids":[7],"group_ids":null,"client_ids":null,')
    message = decode_stored(encode_stored(Ids(1, 1), "/a", envelope))
    assert (message.trace, message.user_ids, message.exclude_client_ids) == (carried, (7,), ("c",))
    assert memory_of([message]) > memory_of([Message(1, 1, "/a", b"1", None, (7,), exclude_client_ids=("c",))])


@pytest.mark.parametrize(
    ("written", "carried"),
    [
        ("5", None),
        ("[]", None),
        ("{}", None),
        ('{"traceparent":5}', None),
        ('{"traceparent":"%s"}' % ("x" * 513), None),
        ('{"traceparent":"x","baggage":"secret"}', {"traceparent": "x"}),
    ],
)
def test_whatever_other_programs_write_as_a_trace_no_message_is_lost(
    written: str, carried: dict[str, str] | None
) -> None:
    message = decode_message(1, 1, "/a", b'{"data":1,"trace":%b}' % written.encode())
    assert (message.data, message.trace) == (1, carried)


# --- deliveries ---


def test_a_delivery_is_a_span_below_the_publish(world: World, spans: Spans) -> None:
    for user in range(3):
        world.follow("/chat", user=user)
    world.publish("/chat", trace={"traceparent": PUBLISH})
    assert not spans.named("deliver"), "it ends when the turn has written"
    world.turn()
    deliver = spans.one("deliver")
    assert deliver.parent is not None
    assert deliver.kind is SpanKind.CONSUMER
    assert (deliver.parent.trace_id, deliver.parent.span_id) == (int(PUBLISH[3:35], 16), int(PUBLISH[36:52], 16))
    assert attributes(deliver) == {
        "messaging.system": "messagebus",
        "messaging.operation.name": "deliver",
        "messaging.destination.name": "/chat",
        "messaging.message.id": "1",
        "messagebus.global_id": 1,
        "messagebus.subscribers": 3,
    }


def test_messages_of_one_publish_that_are_delivered_together_are_one_span(world: World, spans: Spans) -> None:
    world.follow("/chat")
    carried = [PUBLISH, PUBLISH, None, PUBLISH.replace("b7", "b8")]
    world.hub.dispatch(
        [Message(i, i, "/chat", b"1", trace=each and {"traceparent": each}) for i, each in enumerate(carried, 1)]  # type: ignore[arg-type]
    )
    world.turn()
    both, other = map(attributes, spans.named("deliver"))
    assert (both["messaging.batch.message_count"], both["messaging.message.id"]) == (2, "1")
    assert (other.get("messaging.batch.message_count"), other["messaging.message.id"]) == (None, "4")


def test_a_message_for_some_is_delivered_to_them(world: World, spans: Spans) -> None:
    for user in range(3):
        world.follow("/chat", user=user)
    world.publish("/chat", user_ids=(1,), trace={"traceparent": PUBLISH})
    world.publish("/chat", exclude_client_ids=("c0",), trace={"traceparent": PUBLISH})
    world.publish("/chat", user_ids=(99,), trace={"traceparent": PUBLISH})
    world.turn()
    assert [attributes(span)["messagebus.subscribers"] for span in spans.named("deliver")] == [1, 2]


def test_who_follows_a_pattern_is_delivered_to(spans: Spans) -> None:
    world = World(wildcard_subscriptions=("/ch*",))
    try:
        world.follow("*/ch*")
        world.publish("/chat", trace={"traceparent": PUBLISH})
        world.turn()
        assert attributes(spans.one("deliver"))["messaging.destination.name"] == "/chat"
    finally:
        world.reactor.abandon()


@pytest.mark.parametrize("carried", [None, {"traceparent": UNSAMPLED}, {"traceparent": "nonsense"}])
def test_what_carries_no_sampled_trace_makes_no_span(
    world: World, spans: Spans, carried: dict[str, str] | None
) -> None:
    world.follow("/chat")
    world.publish("/chat", trace=carried)
    world.turn()
    assert not spans.named("deliver")


# --- callbacks, and all of it together ---


def test_from_a_publish_through_every_store_to_a_function(bus_on_each_store: Bus, spans: Spans) -> None:
    bus = bus_on_each_store

    def work(message: Message) -> None:
        with trace.get_tracer("app").start_as_current_span("work"):
            pass

    bus.subscribe("/chat", work)
    bus.publish("/chat", 1)
    process = spans.one("process")
    assert is_below(process, spans.one("publish"))
    assert is_below(spans.one("work"), process)
    assert process.kind is SpanKind.CONSUMER
    assert attributes(process)["messaging.operation.type"] == "process"


def test_a_function_that_fails_leaves_its_error_in_the_span(bus: Bus, spans: Spans) -> None:
    def fail(message: Message) -> None:
        raise ValueError("not today")

    bus.subscribe("/chat", fail)
    bus.publish("/chat", 1)
    assert spans.one("process").status.description == "ValueError: not today"


def test_from_a_publish_to_the_socket_of_a_client(bus: Bus, spans: Spans) -> None:
    app = flask.Flask(__name__)
    bus.init_app(app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with EventSource.connect(f"http://127.0.0.1:{server.server_port}", {"/chat": -1}) as client:
            client.next_batch()  # it is connected
            bus.publish("/chat", "hello")
            assert client.data(1) == ["hello"]
        deliver, publish = spans.one("deliver"), spans.one("publish")
        assert is_below(deliver, publish)
        assert deliver.end_time is not None
        assert publish.start_time is not None
        assert deliver.end_time > publish.start_time
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- where it is off ---


def test_a_bus_whose_tracing_is_off_makes_no_spans_and_reads_no_traces(spans: Spans) -> None:
    bus = Bus(url="memory://", tracing=False)
    called = threading.Event()
    try:
        bus.subscribe("/chat", lambda message: called.set())
        envelope = encode_envelope(b"1", trace={"traceparent": PUBLISH})  # another process's
        bus._publisher_now().store.publish("/chat", envelope, max_backlog_size=10, max_backlog_age=100)
        assert called.wait(30)
        bus.publish("/other", 1)
        assert bus.backlog("/other")[0].trace is None
        assert not spans.named("publish")
        assert not spans.named("process")
    finally:
        bus.close()


def test_what_the_sampler_does_not_want_carries_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = trace_with(monkeypatch, TracerProvider(ALWAYS_OFF))
    bus.publish("/chat", 1)
    assert bus.backlog("/chat")[0].trace is None
    assert not spans.named("publish")


def test_a_sampler_that_fails_loses_no_message(
    bus: Bus, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Sampler):
        def should_sample(self, *arguments: Any, **named: Any) -> Any:
            raise ZeroDivisionError

        def get_description(self) -> str:
            return "broken"

    trace_with(monkeypatch, TracerProvider(Broken()))
    assert bus.publish("/chat", 1) == 1
    writer = world.follow("/chat")
    world.publish("/chat", trace={"traceparent": PUBLISH})
    world.turn()
    assert len(writer.messages() or writer.sent) == 1
    assert {record.name for record in caplog.records} == {"messagebus.tracing"}


def test_opentelemetry_is_not_imported_by_a_bus_alone() -> None:
    program = (
        "import sys, messagebus, messagebus.hub.node\n"
        "bus = messagebus.Bus(url='memory://')\n"
        "bus.publish('/chat', 1)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_a_provider_that_is_set_nothing_is_traced(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: trace.ProxyTracerProvider())
    monkeypatch.setattr(trace, "get_tracer", None)
    bus.publish("/chat", 1)
    assert bus.backlog("/chat")[0].trace is None
