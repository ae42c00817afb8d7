"""The public door: what ``messagebus`` offers, and what opening it does not bring along."""

from __future__ import annotations

import subprocess
import sys

import messagebus


def test_the_list_of_exports_is_sorted_and_each_can_be_imported() -> None:
    assert messagebus.__all__ == sorted(set(messagebus.__all__))
    for name in messagebus.__all__:
        assert hasattr(messagebus, name), name


def test_every_export_says_what_it_is_for() -> None:
    undocumented = [name for name in messagebus.__all__ if not (getattr(messagebus, name).__doc__ or "").strip()]
    assert not undocumented


def test_importing_the_package_brings_in_no_store_and_no_gevent() -> None:
    # An app may import it before gevent's monkey patching, for which an ssl that is already imported comes too late.
    heavy = ["gevent", "geventwebsocket", "greenlet", "psycopg", "redis", "ssl", "hiredis"]
    program = f"import sys, messagebus; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
