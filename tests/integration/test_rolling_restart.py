"""A deployment behind nginx, clients on every transport; ``python -m bench.rolling_restart`` is the long form."""

from __future__ import annotations

import pytest

from bench.rolling_restart import judge
from tests.event_loops import in_a_thread


@pytest.mark.redis
@pytest.mark.slow
def test_nobody_notices_that_two_servers_behind_nginx_are_restarted_one_after_the_other() -> None:
    verdict = in_a_thread(lambda: judge(clients=25, restarts=2, every=0.0, rate=50.0, drain=10.0))
    assert verdict.faults == []
    for transport in ("websocket", "eventsource", "streaming"):
        assert verdict.gaps[transport] == [0.0] * 10, f"{transport}: {verdict.lines()}"
