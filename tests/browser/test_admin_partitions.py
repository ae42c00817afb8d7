"""The admin page while a node of a Redis Cluster is away."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from messagebus.stores.hash_tags import hash_tags
from messagebus.stores.partitions import partition_of
from tests.chromium import PageErrors
from tests.publishing import publish
from tests.redis_cluster import RedisCluster
from tests.servers import Server

from .tab import APP
from .test_admin import AXE, KEY

pytestmark = [pytest.mark.browser, pytest.mark.redis]

P = 4
CHANNELS = [f"/c{number}" for number in range(12)]


def test_the_page_shows_the_other_channels_and_says_what_is_lacking(page: Page, page_errors: PageErrors) -> None:
    with RedisCluster(replicas=0, node_timeout=1500) as cluster:
        env = {"MESSAGEBUS_URL": cluster.url(P), "MESSAGEBUS_ADMIN": "1", "MESSAGEBUS_ADMIN_KEYS": KEY}
        with Server("serve", APP, env=env) as server:
            for channel in CHANNELS:
                publish(server.url, channel, 1)
            page.goto(f"{server.url}/message-bus/admin")
            page.get_by_label("Admin key").fill(KEY)
            page.get_by_role("button", name="Sign in").click()
            for channel in CHANNELS:
                page.get_by_role("button", name=channel, exact=True).wait_for()
            assert page.get_by_role("alert").count() == 0
            victim = cluster.owner(hash_tags(P)[0] + b"x")
            away = [number for number, tag in enumerate(hash_tags(P)) if cluster.owner(tag + b"x") is victim]
            victim.kill()
            told = page.get_by_role("alert")
            told.wait_for()
            assert told.inner_text() == (
                f"This is not all: these partitions of the store give no answer: {', '.join(map(str, away))}."
            )
            shown = page.locator("#channels button").all_inner_texts()
            assert shown == sorted(channel for channel in CHANNELS if partition_of(channel, P) not in away)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.evaluate(AXE.read_text())  # not as a script: the page takes none but its own
                assert page.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
