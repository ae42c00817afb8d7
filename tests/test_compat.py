"""Undocumented parts of other packages: what is needed is there, and what is not is named."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from messagebus._compat import PRIVATE, check


@pytest.mark.parametrize("distribution", PRIVATE)
def test_the_installed_version_has_what_is_needed(distribution: str) -> None:
    check(distribution)


@pytest.mark.parametrize("place", ["redis.connection:AbstractConnection", "redis.connection:Vanished"])
def test_a_part_that_is_gone_is_named_with_the_version_that_lacks_it(place: str) -> None:
    with pytest.raises(ImportError) as refused:
        check("redis", {place: ("_sock_of_old",)})
    assert f"redis {version('redis')} has no {place}._sock_of_old" in str(refused.value)
