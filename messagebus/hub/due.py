"""What a subscriber is due: the messages of its channels from its positions on, as this process remembers them together
with what was read for it in the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ..message import Message
from ..options import Options
from .catch_up import CatchUp
from .counters import Counters
from .history import Cursor, HistoryView, covers, merged
from .membership import Membership
from .pacing import Pacer
from .subscriber import Identity, Subscriber
from .trail import Positions, Trail
from .windows import Windows


class Due:
    """See the module. In the reactor's loop only, unless a method says otherwise."""

    def __init__(
        self,
        options: Options,
        windows: Windows,
        membership: Membership,
        pacer: Pacer,
        trail: Trail,
        counters: Counters,
    ) -> None:
        self._options = options
        self._windows = windows
        self._membership = membership
        self._pacer = pacer
        self._trail = trail
        self._counters = counters

    def at_once(
        self, wants: Iterable[Cursor], readings: Mapping[str, HistoryView], identity: Identity, say_epoch: bool
    ) -> list[Message] | None:
        """What a poll that is answered at once is due, or the first piece of it; ``None`` where that was forgotten
        since it was read: read again. From any thread."""
        views: dict[str, HistoryView] = {}
        catch_up = CatchUp(identity)
        catch_up.say_epoch = say_epoch
        epoch = self._windows.epoch_for([want.name for want in wants])
        for want in wants:
            view = self._view_with(want, readings.get(want.name))
            if view is None:
                return None
            views[want.name] = view
            catch_up.add(want, view)

        def holding(name: str, position: int) -> HistoryView | None:
            view = views[name]
            return view if position < view.through or view.ends else None

        may_see = self._pacer.may_see(identity)
        size = self._options.max_catch_up_batch
        batch = catch_up.take(holding, may_see, size, epoch, self._windows.reached).batch
        self._trail.answered(identity, _positions(wants))
        if batch:
            self._counters.caught_up(batch, sum([len(message.raw) for message in batch]))
        return batch

    def _view_with(self, want: Cursor, page: HistoryView | None) -> HistoryView | None:
        """What tells where ``want`` begins: what is known here, together with what was read for it."""
        if page is None:
            return self._windows.covering(want)
        window = self._windows.find(want.name)
        state = window.state if window is not None else None
        if state is None:
            return page
        view = merged(state, page)
        if view is not None and covers(view, want):
            return view
        return msgspec.structs.replace(page, forgotten=state.forgotten)

    def catch_up_on(self, subscriber: Subscriber, wants: Iterable[Cursor], readings: Mapping[str, HistoryView]) -> bool:
        """Have a subscriber catch up on channels, so that it becomes live on them; :meth:`Pacer.proceed` begins. Where
        it follows one already, it begins again there. ``False``, and nothing is changed, where what was read has grown
        too old to tell."""
        found = []
        for want in wants:
            self._windows.enter(want.name)
            read = readings.get(want.name)
            page = None if read is None else self._windows.absorb(want.name, read)
            view = self._windows.covering(want)
            if view is None and read is not None and page is not None:
                state = self._windows.enter(want.name).state
                if want.position < 0 and state is not None and state.floor <= page.floor:
                    view = state  # it has what was read for it, but for what the feed has yet to bring
                elif read.last_id < want.position:
                    view = page  # the store itself has not come so far
            if view is None:
                return False
            found.append((want, view))
        catch_up = subscriber.catch_up or CatchUp(subscriber.identity)
        for want, view in found:
            self._membership.leave(subscriber, want.name)
            catch_up.add(want, view)
        subscriber.catch_up = catch_up
        self._trail.begins(subscriber, _positions([want for want, _ in found]))
        return True


def _positions(wants: Iterable[Cursor]) -> Positions:
    return tuple([(want.name, want.position) for want in wants])
