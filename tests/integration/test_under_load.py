"""Everything breaks while clients publish; ``python -m tests.under_load`` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.event_loops import in_a_thread
from tests.under_load.story import SHORT, judge


@pytest.mark.redis
@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once_and_presence_is_right_whatever_breaks(tmp_path: Path) -> None:
    verdict = in_a_thread(lambda: judge(SHORT, tmp_path))
    assert verdict.faults == [], "\n".join(verdict.lines)
