"""The channel classes of a bus by name, and what of each a client may call. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from .channel import EVERY, Channel

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

Connect = Callable[["Request"], "Mapping[str, Any] | bool | None"]
"""The request that opens a connection -> by what it is identified, or whether it may."""
MAX_NAME = 100
_TAKEN = frozenset([*dir(Channel), "connection", "params"])


class ConnectRefused(Exception):
    """The ``connect`` hook has refused a client."""


class UnknownAction(Exception):
    """A client may not call it; the text says why."""


class ChannelClass(NamedTuple):
    """A registered class."""

    name: str
    base: type[Channel]
    """The class itself."""
    actions: Mapping[str, bool]
    """Its public methods, and whether each takes data."""
    timers: Mapping[str, float]
    """Its methods that are called at an interval, and their seconds."""

    @classmethod
    def of(cls, type_: type[Channel], name: str) -> ChannelClass:
        """
        Raises:
            TypeError: A method cannot be called by a client, for it takes more than one argument.
        """
        actions, timers = {}, {}
        for attribute, method in vars(type_).items():
            if not isinstance(method, FunctionType):
                continue
            every = getattr(method, EVERY, None)
            if every is not None:
                _count_arguments(name, attribute, method, most=0)
                timers[attribute] = every
            elif not attribute.startswith("_") and attribute not in _TAKEN:
                actions[attribute] = _count_arguments(name, attribute, method, most=1) == 1
        return cls(name, type_, actions, timers)

    def check_action(self, action: object) -> str:
        """The name of an action.

        Raises:
            UnknownAction: It is none.
        """
        if not isinstance(action, str):
            raise UnknownAction(f"action: expected the name of an action of {self.name}, not {action!r:.80}")
        if action in self.actions:
            return action
        if action.startswith("_"):
            raise UnknownAction(f"{self.name}: {action:.80} is private")
        if hasattr(self.base, action):
            raise UnknownAction(f"{self.name}: {action:.80} is no action; those are methods that the class itself has")
        raise UnknownAction(f"{self.name} has no action {action:.80}")


class ChannelClasses:
    """Those of a bus, and its ``connect`` hook. To be registered before serving."""

    def __init__(self) -> None:
        self._by_name: dict[str, ChannelClass] = {}
        self.connect: Connect | None = None

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, type_: object, name: str | None = None) -> None:
        """
        Raises:
            TypeError: It is no channel class, or one of its public methods takes more than one argument.
            ValueError: Another class has the name.
        """
        if not (isinstance(type_, type) and issubclass(type_, Channel)):
            raise TypeError(f"expected a class that inherits from messagebus.Channel, not {type_!r:.80}")
        name = type_.__name__ if name is None else name
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"name: expected 1 to {MAX_NAME} characters, not {name!r:.80}")
        known = self._by_name.get(name)
        # A module that is loaded again, as by a test or a reloader, registers its classes again.
        if known is not None and (known.base.__module__, known.base.__qualname__) != (
            type_.__module__,
            type_.__qualname__,
        ):
            raise ValueError(f"{name} is the name of {known.base.__module__}.{known.base.__qualname__} already")
        self._by_name[name] = ChannelClass.of(type_, name)

    def identify(self, request: Request) -> Mapping[str, Any]:
        """By what the ``connect`` hook identifies a client. Whatever the hook raises propagates.

        Raises:
            ConnectRefused: The hook says no.
            TypeError: It returned something else than it may.
        """
        found = self.connect(request) if self.connect is not None else None
        if found is None or found is True:
            return {}
        if found is False:
            raise ConnectRefused("this client may not connect")
        if not isinstance(found, Mapping):
            raise TypeError(f"the connect hook returned {found!r:.80}; expected a dict, True, False or None")
        return dict(found)

    def find(self, name: str) -> ChannelClass | None:
        return self._by_name.get(name)


def _count_arguments(name: str, attribute: str, method: FunctionType, most: int) -> int:
    """How many arguments a method is called with, beside ``self``."""
    signature = inspect.signature(method)
    for count in range(most, -1, -1):
        try:
            signature.bind(None, *[None] * count)
        except TypeError:
            continue
        return count
    takes = "nothing" if most == 0 else "the client's data, or nothing"
    raise TypeError(f"{name}.{attribute}{signature}: it is called with {takes}")
