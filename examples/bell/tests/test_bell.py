import pytest
from bell import create_app, database
from bell.notifications import notify

from messagebus.testing import published

ADA, GRACE = 1, 2


@pytest.fixture
def app(message_bus, tmp_path):
    app = create_app({"DATABASE": str(tmp_path / "bell.sqlite"), "WTF_CSRF_ENABLED": False})
    with app.app_context():
        database.init(ada="ada", grace="grace")
    return app


@pytest.fixture
def ada(app):
    client = app.test_client()
    client.post("/login", data={"name": "ada", "password": "ada"})
    return client


def poll(client, channel):
    """What a browser of this client would get of a channel, from its beginning."""
    return client.post("/message-bus/test/poll?dlp=t", data={channel: 0})


def test_a_wave_rings_the_bell_of_the_other_user(ada):
    with published(f"/notifications/{GRACE}") as messages:
        ada.post(f"/wave/{GRACE}")
    assert messages.data == [{"text": "ada waves at you", "unread": 1}]


def test_a_user_gets_their_own_notifications(app, ada):
    with app.app_context():
        notify(ADA, "The backup has finished")
    answer = poll(ada, f"/notifications/{ADA}")
    assert [message["data"]["text"] for message in answer.json if message["global_id"] > 0] == [
        "The backup has finished"
    ]


def test_a_user_may_not_follow_another_one(ada):
    assert poll(ada, f"/notifications/{GRACE}").status_code == 403


def test_a_visitor_may_not_follow_anybody(app):
    assert poll(app.test_client(), f"/notifications/{ADA}").status_code == 403


def test_to_look_clears_the_number_on_every_page(app, ada):
    with app.app_context():
        notify(ADA, "The backup has finished")
    with published(f"/notifications/{ADA}") as messages:
        ada.post("/seen")
    assert messages.data == [{"unread": 0}]
    assert 'id="unread"></output>' in ada.get("/").text
