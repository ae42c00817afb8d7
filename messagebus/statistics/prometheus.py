"""The numbers of all workers in the form that Prometheus reads, by its own library: names, escaping and the format's
versions are its matter, and others' exporters stand on it as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTERS = {
    "published": ("messagebus_published_messages", "Messages that the process has published."),
    "dispatched": ("messagebus_dispatched_messages", "Messages that the store's feed has brought to the process."),
    "delivered": ("messagebus_delivered_messages", "Messages given to subscribers, once for each subscriber."),
    "bytes": ("messagebus_delivered_bytes", "Bytes of them, as the transports send them."),
    "catch_ups": ("messagebus_catch_ups", "Times that a subscriber was given messages that it had missed."),
    "gaps": ("messagebus_gaps", "Times that a subscriber was told of messages that no longer exist."),
    "slow": ("messagebus_slow_subscribers", "Subscribers that were cut off because they read too slowly."),
}
"""Number in a worker's report -> name of the metric, which gets _total behind it, and its help."""
GAUGES = {
    "channels": ("messagebus_followed_channels", "Channels that subscribers of the process follow."),
    "waiting_bytes": ("messagebus_waiting_bytes", "Bytes that wait for slow subscribers."),
    "window_bytes": ("messagebus_window_bytes", "Bytes of messages that the process remembers."),
    "queued_publishes": ("messagebus_queued_publishes", "Messages that wait for a store that is away."),
    "store_seconds": ("messagebus_store_round_trip_seconds", "How long the store took for the last report."),
    "since": ("messagebus_start_time_seconds", "When the process began, in Unix time."),
}

LABELS = ("worker", "pid", "host")
"""The worker's own name alone is always another one: a process may have two buses, and a container's is always 1."""


def render_metrics(reports: Mapping[str, Mapping[str, Any]], healthy: bool) -> bytes:
    """Every worker's numbers, each with the ``LABELS``; ``healthy``: whether the process that answers hears the store.

    Raises:
        ImportError: ``prometheus_client`` is not installed.
    """
    from prometheus_client import generate_latest
    from prometheus_client.registry import Collector, CollectorRegistry

    class Workers(Collector):
        def collect(self) -> Iterator[Any]:
            return _families(reports, healthy)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Workers())
    return generate_latest(registry)


def _families(reports: Mapping[str, Mapping[str, Any]], healthy: bool) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = {name: [name, str(report.get("pid", "")), str(report.get("host", ""))] for name, report in reports.items()}
    for key, (name, text) in COUNTERS.items():
        family = CounterMetricFamily(name, text, labels=[*LABELS])
        for worker, report in reports.items():
            family.add_metric(labels[worker], report.get(key, 0))
        yield family
    for key, (name, text) in GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=[*LABELS])
        for worker, report in reports.items():
            gauge.add_metric(labels[worker], report.get(key, 0))
        yield gauge
    subscribers = GaugeMetricFamily("messagebus_subscribers", "Connected subscribers.", labels=[*LABELS, "transport"])
    limits = CounterMetricFamily(
        "messagebus_limits_met", "Requests and connections that a limit has refused.", labels=[*LABELS, "limit"]
    )
    for worker, report in reports.items():
        for transport, number in report.get("by_transport", {}).items():
            subscribers.add_metric([*labels[worker], transport], number)
        for limit, number in report.get("limits", {}).items():
            limits.add_metric([*labels[worker], limit], number)
    yield subscribers
    yield limits
    yield GaugeMetricFamily("messagebus_workers", "Processes that listen to the store.", value=len(reports))
    yield GaugeMetricFamily(
        "messagebus_feed_up", "Whether the process that answers hears the store's feed.", value=int(healthy)
    )
