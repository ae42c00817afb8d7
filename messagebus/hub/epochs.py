"""The epochs of a store's partitions, and the one text with which a client names those that concern it. Pure.

Of a store with one partition the text is its epoch. Otherwise it joins the beginnings of the epochs of the partitions
that the client's channels are in: ``7-9f2c1a0b.12-03d4e5f6``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..stores import StoreState

LENGTH = 8
"""Characters of an epoch in a text of several: it only has to differ from those before it."""
LONGEST_OF_ONE = 128
"""Characters that an epoch may have."""
NONE: frozenset[int] = frozenset()
_TEXT = re.compile(r"[0-9]{1,4}-[^.]{1,32}(\.[0-9]{1,4}-[^.]{1,32})*", re.ASCII)


def longest_text(channels: int) -> int:
    """Characters that a client of so many channels may name."""
    return max(LONGEST_OF_ONE, channels * (len("1023-.") + LENGTH))


class Epochs:
    """See the module. One for each process; changed in the feed's thread or in the loop, and read from any."""

    def __init__(self, partitions: int = 1) -> None:
        self._of: list[str | None] = [None] * partitions
        self.lineages: list[Mapping[str, int]] = [{}] * partitions
        """See ``StoreState``; that of a partition's epoch, or of a later one."""

    def __len__(self) -> int:
        """The number of partitions."""
        return len(self._of)

    def __getitem__(self, partition: int) -> str | None:
        """The epoch of a partition, as far as this process knows."""
        return self._of[partition]

    def __setitem__(self, partition: int, epoch: str | None) -> None:
        self._of[partition] = epoch

    def begin_life(self, partition: int, state: StoreState) -> None:
        """What a partition's epoch is now, and what it has of former ones."""
        self.lineages[partition] = state.lineage  # first: who has read the epoch finds what belongs to it
        self._of[partition] = state.epoch

    def text(self, partitions: Iterable[int]) -> str | None:
        """What a client with channels in these partitions is told; ``None``: nothing is known of them."""
        if len(self._of) == 1:
            return self._of[0]
        named = [(each, epoch) for each in sorted({*partitions}) if (epoch := self._of[each])]
        return ".".join([f"{each}-{epoch[:LENGTH]}" for each, epoch in named]) or None

    def named(self, text: str | None) -> Named:
        """What a client says that it knows."""
        return Named(self, text)

    def outdated(self, text: str | None) -> frozenset[int]:
        """The partitions of which a client has positions of another life; always none where there is one partition."""
        if len(self._of) == 1:
            return NONE
        named = self.named(text)
        return frozenset([each for each in range(len(self._of)) if named.is_over(each)])

    def copy(self) -> Epochs:
        found = Epochs()
        found._of = self._of[:]  # first, see ``begin_life``
        found.lineages = self.lineages[:]
        return found


class Named:
    """A text of a client, which is ``None`` where it knows of no epochs, and empty where it has none yet."""

    def __init__(self, epochs: Epochs, text: str | None) -> None:
        self._epochs = epochs
        self._text = text
        self._parts: dict[int, str] | None = None
        if len(epochs) > 1 and text and _TEXT.fullmatch(text):
            pairs = [each.partition("-") for each in text.split(".")]
            self._parts = {int(number): epoch for number, _, epoch in pairs}

    def __getitem__(self, partition: int) -> str | None:
        """What it knows of a partition: ``None`` or empty as for the text; nothing else that one could compare."""
        if self._parts is None:
            return self._text
        return self._parts.get(partition)

    def is_over(self, partition: int) -> bool:
        """Whether it has positions of another life of the partition. A text that this store has not given is of another
        store, and so of another life."""
        known, epoch = self[partition], self._epochs[partition]
        return bool(known and epoch) and not self.is_same(partition, epoch)

    def is_same(self, partition: int, epoch: str | None) -> bool:
        """Whether it knows this epoch of a partition."""
        return epoch is not None and self[partition] == (epoch if self._parts is None else epoch[:LENGTH])

    def shared(self, partition: int) -> int | None:
        """Up to which global id the present life of a partition has what was in the one that it knows; ``None``: it is
        not of that lineage."""
        lineage = self._epochs.lineages[partition]
        return next((shared for epoch, shared in lineage.items() if self.is_same(partition, epoch)), None)
