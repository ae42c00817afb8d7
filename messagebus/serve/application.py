"""Makes the WSGI app to serve, in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .settings import Settings


def make(settings: Settings) -> Callable[..., Any]:
    """Ends the process with one line that says why, if there is no app."""
    from .. import options
    from ..bus import MessageBus
    from ..errors import MessageBusError
    from .load import CannotServe, load_application
    from .worker import give_up

    given = settings.options if settings.url is None else {**settings.options, "url": settings.url}
    if given:
        options.set_from_command(**given)
    try:
        if settings.application is not None:
            return load_application(settings.application)
        from .standalone import make_app

        return make_app(
            MessageBus,
            anonymous_publish=settings.anonymous_publish,
            allowed_hosts=settings.allowed_hosts,
            hosts_are_checked=settings.is_reached_by_browsers,
        )
    except (CannotServe, MessageBusError) as error:
        give_up(str(error))
