"""Reads the channels of a request one by one: those that the client gets, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import InvalidChannel, InvalidPosition
from ..hub.subscribe_request import ChannelRefusal
from ..names import check_subscription, is_presence
from ..option_kinds import overlaps
from ..options import Options
from ..wire import Position, parse_position

CODES: dict[type[Exception], str] = {InvalidChannel: "invalid_channel", InvalidPosition: "invalid_position"}


class ChannelRefused(Exception):
    """A channel is refused, and with it the whole request: the client does not accept refusals of single channels."""

    def __init__(self, channel: str, refusal: ChannelRefusal) -> None:
        super().__init__(refusal.message)
        self.channel = channel
        self.refusal = refusal


class Refusals:
    """The refused channels of a request, by name."""

    def __init__(self, one_by_one: bool) -> None:
        """``one_by_one``: whether the client accepts refusals of single channels."""
        self._one_by_one = one_by_one
        self.found: dict[str, ChannelRefusal] = {}

    def add(self, channel: str, refusal: ChannelRefusal) -> None:
        """Raises ChannelRefused if the client does not accept refusals of single channels."""
        if not self._one_by_one:
            raise ChannelRefused(channel, refusal)
        self.found[channel] = refusal


def read_positions(
    asked: Mapping[str, object], refusals: Refusals, room: int, limit: int, is_followed: Callable[[str], bool] | None
) -> dict[str, Position]:
    """Channel -> position, for the first ``room`` valid channels; the others become refusals. ``limit``: the number of
    channels that a client may follow, for the message. ``is_followed``: whether it already follows a channel, which
    then takes no room.

    Raises:
        ChannelRefused: As in ``Refusals.add``.
    """
    positions: dict[str, Position] = {}
    for channel, value in asked.items():
        try:
            position = parse_position(check_subscription(channel), value)
        except (InvalidChannel, InvalidPosition) as error:
            refusals.add(channel, ChannelRefusal(CODES[type(error)], str(error)))
            continue
        if is_followed is None or not is_followed(channel):
            if room <= 0:
                refusals.add(
                    channel,
                    ChannelRefusal("too_many_channels", f"{channel}: max_channels allows {limit} channels at a time"),
                )
                continue
            room -= 1
        positions[channel] = position
    return positions


def check_patterns(
    options: Options, positions: dict[str, Position], refusals: Refusals, followed: Sequence[str] = ()
) -> None:
    """Take the patterns out that nobody may subscribe to, and what would bring messages twice: a pattern brings those
    of its channels. ``followed``: what the client follows already.

    Raises:
        ChannelRefused: As in ``Refusals.add``.
    """
    known = [*followed, *positions]
    if not any(name.endswith("*") for name in known):
        return
    for channel in list(positions):
        if channel.endswith("*") and channel not in options.wildcard_subscriptions:
            reason = f"{channel}: a pattern, and none of those in wildcard_subscriptions"
            refusals.add(channel, ChannelRefusal("forbidden", reason))
            del positions[channel]
            known.remove(channel)
    for channel in list(positions):
        if is_presence(channel):
            continue  # no pattern has those
        other = next((other for other in known if other != channel and _has(other, channel)), None)
        if other is not None:
            reason = f"{channel}: {other} brings its messages already"
            refusals.add(channel, ChannelRefusal("invalid_channel", reason))
            del positions[channel]


def _has(pattern: str, channel: str) -> bool:
    return pattern.endswith("*") and overlaps(pattern, channel)
