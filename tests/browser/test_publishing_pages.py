"""What pages publish: signed by a hook, through a bad network, without being kept, and to everybody but themselves."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext

from tests.bad_network import BadNetwork
from tests.chromium import PageErrors
from tests.servers import Server

from .conftest import NewTab
from .tab import BROKEN, HELD, new_channel, publish

pytestmark = pytest.mark.browser

SAY = """([channel, data]) => MessageBus.publish(channel, data).then(
    ({ message_id }) => message_id, ({ code, message }) => [code, message]
)"""


@pytest.mark.parametrize("transport", ["websocket", "streaming"])
def test_a_hook_signs_what_a_page_says_or_tells_why_not(
    redis_backed_server: Server, new_tab: NewTab, context: BrowserContext, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)  # of a request that is refused every browser tells its console
    channel = f"/said{new_channel()}"
    tab = new_tab(redis_backed_server.url, channel).open(transport)
    assert tab.evaluate(SAY, [channel, "hi"]) == ["forbidden", "friends alone"]
    context.add_cookies([{"name": "friend", "value": "yes", "url": redis_backed_server.url}])
    tab.open(transport)
    assert tab.evaluate(SAY, [channel, "hi"]) == 1
    tab.expect([{"said": "hi", "by": "a friend"}])


def test_a_page_on_a_network_that_cuts_at_random_publishes_each_once_and_in_order(
    redis_backed_server: Server, new_tab: NewTab, context: BrowserContext, page_errors: PageErrors
) -> None:
    """Its requests go to two workers, and come again on either."""
    page_errors.expect(BROKEN)
    channel = f"/typing{new_channel()}"
    with BadNetwork(redis_backed_server.port) as network:
        tab = new_tab(network.url).open("polling", connected=False)
        tab.evaluate("MessageBus.publish('/typing/first', 'the code is loaded')")
        network.cut_after(600)
        network.cut()
        ids = tab.evaluate(
            """channel => Promise.all(Array.from({ length: 20 }, (_, number) =>
                MessageBus.publish(channel, number, { timeout: 60000 }).then(({ message_id }) => message_id)
            ))""",
            channel,
        )
        assert network.cuts > 2
    assert ids == list(range(1, 21))
    reader = new_tab(redis_backed_server.url).open("polling", connected=False)
    reader.evaluate("channel => MessageBus.subscribe(channel, (data) => received.push({ channel, data }), 0)", channel)
    reader.expect(list(range(20)))


@pytest.mark.parametrize("transport", HELD)
def test_what_is_transient_reaches_a_page_that_is_there_and_moves_nothing(
    redis_backed_server: Server, new_tab: NewTab, transport: str
) -> None:
    channel = f"/typing{new_channel()}"
    publish(redis_backed_server, channel, ["kept"])
    reader = new_tab(redis_backed_server.url, channel).open(transport)
    writer = new_tab(redis_backed_server.url).open("websocket", connected=False)
    # A long poll that is on its way misses it, so it is told until one has come.
    writer.evaluate(
        """channel => void (window.typing = setInterval(
            () => MessageBus.publish(channel, "typing", { transient: true, key: "me" }), 50
        ))""",
        channel,
    )
    reader.wait_for_count(1)
    writer.evaluate("clearInterval(typing)")
    publish(redis_backed_server, channel, ["kept too"])
    reader.wait_until("() => received.some(({ data }) => data === 'kept too')")
    assert {*reader.data()} == {"typing", "kept too"}
    assert reader.evaluate("channel => MessageBus.diagnostics().channels[channel]", channel) == 2
    assert reader.gaps() == []


def test_a_form_tells_everybody_but_its_own_page(redis_backed_server: Server, new_tab: NewTab) -> None:
    channel = new_channel()
    mine, other = (new_tab(redis_backed_server.url, channel).open("websocket") for _ in range(2))
    mine.evaluate(
        """channel => {
            document.addEventListener(
                "formdata", ({ formData }) => formData.set("messagebus_client_id", MessageBus.clientId)
            );
            document.body.insertAdjacentHTML("beforeend", `<form method="post" action="/say">
                <input name="channel" value="${channel}"><input name="text" value="hello"></form>`);
            document.forms[0].submit();
        }""",
        channel,
    )
    other.expect(["hello"])
    publish(redis_backed_server, channel, ["for all"])
    mine.expect(["for all"])
