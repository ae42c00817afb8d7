"""Ids of users and groups: one rule for those that a lookup returns and those that a publish is given."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import flask
import pytest

from messagebus import Bus, InvalidTargets
from messagebus.message import check_id, id_key


class Number(enum.IntEnum):
    SEVEN = 7


class Word(str, enum.Enum):
    SEVEN = "7"


class LikeNumpy:
    """An integer of another library: numpy's have ``__index__`` and are no ``int``."""

    def __index__(self) -> int:
        return 7


UUID_7 = UUID(int=7)
SAME: dict[object, list[object]] = {
    7: [7, 7.0, Number.SEVEN, LikeNumpy(), Decimal("7"), Decimal("7.0")],
    "7": ["7", Word.SEVEN],
    str(UUID_7): [UUID_7, str(UUID_7)],
    7.5: [7.5],
    -1: [-1, -1.0],
    "": [""],
}
NO_IDS = [True, False, None, b"7", [7], {"id": 7}, (7,), object(), float("nan"), float("inf"), Decimal("7.5")]
NO_IDS += [Decimal("NaN"), Decimal("sNaN"), Decimal("1e400"), 1e300, 7j]


@pytest.mark.parametrize(("given", "same"), [(each, id_) for id_, all_ in SAME.items() for each in all_])
def test_equal_ids_are_one_however_they_are_given(given: object, same: object) -> None:
    checked = check_id("user_ids", given)
    assert checked == same
    assert type(checked) is type(same)
    assert id_key(checked) == id_key(same)


@pytest.mark.parametrize("given", NO_IDS, ids=lambda each: type(each).__name__)
def test_what_is_no_id_is_refused_with_its_type(given: object) -> None:
    with pytest.raises(InvalidTargets, match=type(given).__name__):
        check_id("user_ids", given)


def test_different_ids_stay_apart() -> None:
    assert len({id_key(each) for each in SAME}) == len(SAME)


def test_an_id_of_another_program_is_compared_by_the_same_rule() -> None:
    assert id_key(7.0) == id_key(7) != id_key("7")
    assert id_key(True) != id_key(1)
    assert id_key([1, {"a": None}]) == id_key([1, {"a": None}])


class Site:
    """An app whose lookups return what a test says."""

    def __init__(self) -> None:
        self.user: Any = None
        self.groups: Any = None
        self.site: Any = None
        self.bus = Bus(
            url="memory://",
            user_id_lookup=lambda environ: self.user,
            group_ids_lookup=lambda environ: self.groups,
            site_id_lookup=lambda environ: self.site,
        )
        app = flask.Flask(__name__)
        app.register_blueprint(self.bus.blueprint)
        self.client = app.test_client()

    def poll(self, channel: str) -> Any:
        return self.client.post("/message-bus/me/poll?dlp=t", data={channel: 0})

    def read(self, channel: str) -> list[object]:
        response = self.poll(channel)
        assert response.status_code == 200, response.text
        return [message["data"] for message in response.json if message["channel"] == channel]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.bus.close()


@pytest.mark.parametrize("by", ["user_ids", "group_ids"])
def test_whatever_both_sides_take_is_delivered_exactly_where_the_ids_are_equal(site: Site, by: str) -> None:
    every = [(same, each) for same, all_ in SAME.items() for each in all_]
    for number, (_, each) in enumerate(every):
        site.bus.publish("/a", number, **{by: [each]})  # type: ignore[arg-type]
    for same, each in every:
        site.user, site.groups = (each, None) if by == "user_ids" else (None, [each])
        expected = [number for number, (other, _) in enumerate(every) if id_key(other) == id_key(same)]
        assert site.read("/a") == expected


@pytest.mark.parametrize("given", [each for each in NO_IDS if each is not None], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("by", ["user_ids", "group_ids"])
def test_what_one_side_refuses_the_other_refuses_as_well_and_says_the_type(
    site: Site, by: str, given: object, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidTargets, match=rf"{by}.*{type(given).__name__}"):
        site.bus.publish("/a", 1, **{by: [given]})  # type: ignore[arg-type]
    assert site.bus.newest_global_id() == 0
    site.user, site.groups = (given, None) if by == "user_ids" else (None, [given])
    response = site.poll("/a")
    assert response.status_code == 500
    assert response.json["error"]["code"] == "internal"
    assert type(given).__name__ in response.json["error"]["message"]
    assert "Traceback" not in caplog.text


def test_a_lookup_that_returns_no_id_is_logged_once_and_not_for_each_poll(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.user = {"a set"}
    for _ in range(5):
        assert site.poll("/a").status_code == 500
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize("groups", ["admins", b"admins", 7])
def test_groups_that_are_no_list_are_refused(site: Site, groups: object) -> None:
    site.groups = groups
    assert "group_ids_lookup" in site.poll("/a").json["error"]["message"]


def test_a_site_that_is_none_is_refused_and_not_a_traceback(site: Site) -> None:
    site.site = 7
    response = site.poll("/a")
    assert response.status_code == 500
    assert "site_id_lookup" in response.json["error"]["message"]
