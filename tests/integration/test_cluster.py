"""A bus on a Redis Cluster, with several partitions: how they are numbered, found, fed, and what is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from messagebus import Bus
from messagebus.command.doctor.store import NoStore, check_store
from messagebus.errors import BackendUnavailable, InvalidOption, PublishRefused
from messagebus.message import Ids, encode_envelope
from messagebus.options import Options
from messagebus.stores import BacklogQuery, Publication, PublicationId, Store, StoreState, open_store
from messagebus.stores.advice import redis_cluster_rights
from messagebus.stores.hash_tags import hash_tags
from tests.eventually import eventually
from tests.interested import Interested
from tests.ports import free_port
from tests.recorder import Recorder
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.store_helpers import LIMITS, make_certificate, publish

pytestmark = pytest.mark.redis

P = 16
NAMES = [f"/c{number}" for number in range(40)]
OpenStore = Callable[..., Store]


@pytest.fixture
def open_cluster() -> Iterator[OpenStore]:
    opened: list[Store] = []

    def make(url: str, **options: object) -> Store:
        opened.append(open_store(Options(url=url, **options)))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(empty_cluster: RedisCluster, open_cluster: OpenStore) -> Store:
    return open_cluster(empty_cluster.url(P))


def listen(store: Store) -> Recorder:
    recorder = Recorder()
    store.listen(recorder)
    eventually(lambda: len(recorder.told("started")) == store.partitions)
    return recorder


def follow(store: Store, *names: str) -> Interested:
    return Interested(store, *names)


# --- ids and keys ---


def test_each_partition_numbers_its_messages_and_says_so_in_their_ids(store: Store) -> None:
    given = [publish(store, name, 1) for name in NAMES]
    counts = [0] * P
    for name, ids in zip(NAMES, given, strict=True):
        partition = store.partition_of(name)
        counts[partition] += 1
        assert ids == Ids(1, counts[partition] * P + partition)
    for partition, count in enumerate(counts):
        state = store.state(partition)
        assert state.global_id == count * P + partition
        assert (state.epoch is None) == (count == 0)
        kept = store.global_backlog(partition)
        assert [message.global_id for message in kept] == [n * P + partition for n in range(1, count + 1)]
    assert {message.global_id for name in NAMES for message in store.backlog(name).messages} == {
        ids.global_id for ids in given
    }


def test_all_keys_of_a_partition_are_in_its_slot_and_all_nodes_have_some(
    store: Store, empty_cluster: RedisCluster
) -> None:
    for name in NAMES:
        publish(store, name, 1)
    tags = hash_tags(P)
    for server in empty_cluster.primaries():
        with server.client() as client:
            keys = [key for key in client.scan_iter() if key != b"{messagebus}__mb_layout"]
        assert keys
        for key in keys:
            assert key[: key.index(b"}") + 1] in tags
            if b"__mb_backlog_n_" in key:
                name = key.partition(b"__mb_backlog_n_")[2].decode()
                assert key.startswith(tags[store.partition_of(name)])


def test_many_messages_are_one_step_in_each_partition_and_get_the_same_ids_again(store: Store) -> None:
    messages = [Publication(NAMES[number % 7], encode_envelope(b"%d" % number), 100, 100) for number in range(50)]
    given = store.publish_many(messages, PublicationId("lane", 1))
    assert store.publish_many(messages, PublicationId("lane", 1)) == given
    # One partition's alone, as when the others have been stored.
    some = [
        number for number, each in enumerate(messages) if store.partition_of(each.name) == store.partition_of("/c0")
    ]
    assert store.publish_many([messages[number] for number in some], PublicationId("lane", 1)) == [
        given[number] for number in some
    ]
    for name in NAMES[:7]:
        expected = [number for number, each in enumerate(messages) if each.name == name]
        kept = store.backlog(name).messages
        assert [message.data for message in kept] == expected
        assert [Ids(message.message_id, message.global_id) for message in kept] == [given[at] for at in expected]


def test_backlogs_and_last_ids_of_all_partitions_come_in_the_order_of_the_question(store: Store) -> None:
    for number, name in enumerate(NAMES):
        for _ in range(number % 3):
            publish(store, name, number)
    assert store.last_ids(NAMES) == [number % 3 for number in range(len(NAMES))]
    for number, page in enumerate(store.backlogs([BacklogQuery(name, 0) for name in NAMES], 10_000)):
        assert [message.data for message in page.messages] == [number] * (number % 3)
    names: set[str] = set()
    some = store.channels(limit=3)
    names.update(some.names)
    while some.cursor:
        some = store.channels(some.cursor, limit=3)
        names.update(some.names)
    assert names == {name for number, name in enumerate(NAMES) if number % 3}


# --- feeds ---


def test_a_feed_without_an_interest_hears_every_partition_without_a_hole(store: Store) -> None:
    recorder = listen(store)
    assert {state.global_id for state in recorder.told("started") if isinstance(state, StoreState)} == set(range(P))
    for number in range(200):
        publish(store, NAMES[number % len(NAMES)], number)
    eventually(lambda: len(recorder.messages) == 200)
    for partition in range(P):
        ids = [global_id for global_id in recorder.ids if global_id % P == partition]
        assert ids == [n * P + partition for n in range(1, len(ids) + 1)]
    assert recorder.told("resync") == recorder.told("healthy") == []


def test_a_feed_with_an_interest_hears_its_own_channels_and_no_stranger(store: Store) -> None:
    recorder = follow(store, *NAMES[:20])
    for number in range(400):
        publish(store, NAMES[number % len(NAMES)], number)
    recorder.catch_up()
    assert sorted(int(str(data)) for data in recorder.data) == [n for n in range(400) if n % len(NAMES) < 20]
    recorder.want(NAMES[30])
    recorder.let_go(NAMES[0])
    publish(store, NAMES[30], 1000)
    publish(store, NAMES[0], 1001)
    recorder.catch_up()
    assert recorder.data[-1] == 1000
    assert recorder.told("resync") == []


def test_who_comes_to_want_everything_hears_everything(store: Store) -> None:
    recorder = follow(store, NAMES[0])
    recorder.interest.want_everything()
    eventually(lambda: len(recorder.told("resync")) == P)
    for number, name in enumerate(NAMES):
        publish(store, name, number)
    eventually(lambda: sorted(map(int, map(str, recorder.data))) == list(range(len(NAMES))))
    assert len(recorder.told("resync")) == P


def test_another_epoch_of_a_partition_is_told_to_those_who_follow_it_alone(store: Store) -> None:
    recorder = follow(store, *NAMES)
    for name in NAMES:
        publish(store, name, 1)
    recorder.catch_up()
    before = store.state(3)
    after = store.renew_epoch(before.epoch, 3)
    assert after.epoch != before.epoch
    eventually(lambda: recorder.told("resync") == [after])
    assert [store.state(number).epoch for number in range(P) if number != 3] == [
        state.epoch
        for number in range(P)
        if number != 3
        for state in recorder.told("started")
        if isinstance(state, StoreState) and state.global_id % P == number
    ]


def test_what_workers_tell_each_other_comes_once(store: Store, open_cluster: OpenStore) -> None:
    other = open_cluster(f"{store._options.url}")  # type: ignore[attr-defined]
    recorders = [listen(store), listen(other)]
    for number in range(20):
        (store, other)[number % 2].announce(str(number))
    for recorder in recorders:
        eventually(lambda recorder=recorder: len(recorder.told("announced")) >= 20)  # type: ignore[misc]
        assert sorted(map(int, map(str, recorder.told("announced")))) == list(range(20))


# --- what is refused before anything is written ---


def keys(cluster: RedisCluster) -> int:
    total = 0
    for server in cluster.primaries():
        with server.client() as client:
            total += client.dbsize()
    return total


def test_another_number_of_partitions_is_refused_with_both_and_what_to_do(
    store: Store, empty_cluster: RedisCluster, open_cluster: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store, "/a", 1)
    before = keys(empty_cluster)
    other = open_cluster(empty_cluster.url(4))
    for ask in (
        lambda: publish(other, "/a", 2),
        lambda: other.publish_many([Publication(name, b"{}", 1, 1) for name in NAMES]),
        lambda: other.backlog("/a"),
        lambda: other.last_ids(["/a"]),
        lambda: other.state(),
        lambda: other.channels(),
        lambda: other.reset(),
        lambda: other.announce("x"),
    ):
        with pytest.raises(InvalidOption, match=r"16 partitions.*asks for 4.*partitions=16"):
            ask()
    feed = other.listen(Recorder())
    eventually(lambda: "asks for 4" in caplog.text)
    feed.close()
    assert keys(empty_cluster) == before
    store.reset()
    assert keys(empty_cluster) == 0
    publish(other, "/a", 1)
    later = open_cluster(empty_cluster.url(P))
    with pytest.raises(InvalidOption, match="4 partitions"):
        publish(later, "/a", 1)


def test_a_bus_that_is_used_after_a_reset_is_laid_out_as_before(
    store: Store, empty_cluster: RedisCluster, open_cluster: OpenStore
) -> None:
    recorder = listen(store)
    publish(store, "/a", 1)
    eventually(lambda: recorder.messages)
    store.reset()
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [1, 2])
    assert keys(empty_cluster) > 1

    def refused() -> bool:
        with suppress(InvalidOption, BackendUnavailable):
            open_cluster(empty_cluster.url(4)).state()
            return False
        return True

    eventually(refused)


def test_a_redis_by_itself_in_the_place_of_a_cluster_is_told_as_what_it_is(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
    with closing(Bus(url=f"redis+cluster://127.0.0.1:{redis_server.port}/")) as bus:
        with pytest.raises(InvalidOption, match=r"is no node of a cluster, but a Redis by itself.*redis://host"):
            bus.publish("/a", 1)
        with pytest.raises(InvalidOption, match="a Redis by itself"):
            bus.backlog("/a")
    with redis_server.client() as client:
        assert client.dbsize() == 0


def test_a_cluster_in_the_place_of_a_redis_is_told_as_what_it_is(empty_cluster: RedisCluster) -> None:
    with closing(Bus(url=f"redis://127.0.0.1:{empty_cluster.servers[0].port}/0")) as bus:
        with pytest.raises(InvalidOption, match=r"is a node of a Redis Cluster.*redis\+cluster://"):
            bus.publish("/a", 1)
        with pytest.raises(BackendUnavailable, match="is a node of a Redis Cluster"):
            bus.backlog("/a")
    assert keys(empty_cluster) == 0


def test_a_cluster_in_which_slots_belong_to_nobody_is_refused_until_they_do() -> None:
    server = RedisServer(settings=("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"))
    with closing(Bus(url=f"redis+cluster://127.0.0.1:{server.port}/")) as bus:
        server.start()
        try:
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 9999)
                with pytest.raises(BackendUnavailable, match="6384 of the 16384 slots have no node"):
                    bus.publish("/a", 1, queue_in_memory=False)
                assert client.dbsize() == 0
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 10000, 16383)
            assert eventually(lambda: published(bus)) == 1
        finally:
            server.stop()


def published(bus: Bus) -> int | None:
    with suppress(BackendUnavailable):
        return bus.publish("/a", 1, queue_in_memory=False)
    return None


def test_a_node_that_does_not_answer_is_passed_over(empty_cluster: RedisCluster, open_cluster: OpenStore) -> None:
    store = open_cluster(empty_cluster.url(4).replace("127.0.0.1", "127.0.0.1:1,127.0.0.1", 1))
    assert publish(store, "/a", 1).message_id == 1


# --- a user of its own ---

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def user_url(empty_cluster: RedisCluster) -> Iterator[Callable[[str], str]]:
    """Makes a user with some rules on all nodes; the URL with its name."""

    def make(rules: str) -> str:
        for server in empty_cluster.servers:
            with server.client() as client:
                client.execute_command("ACL", "SETUSER", "bus", "reset", "on", ">pw", *rules.split())
        return empty_cluster.url(P).replace("://", "://bus:pw@")

    yield make
    for server in empty_cluster.servers:
        with server.client() as client:
            client.execute_command("ACL", "DELUSER", "bus")


def test_the_line_of_the_documentation_suffices(
    user_url: Callable[[str], str], open_cluster: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    text = (DOCS / "redis.md").read_text().replace("\\\n", "")
    found = re.search(r"ACL SETUSER cluster-bus on >\S+ (.+?)\n```", text, re.S)
    assert found
    rules = " ".join(found[1].split())
    assert rules == redis_cluster_rights("_message_bus_0_announcements")
    store = open_cluster(user_url(rules))
    all_of_it, some = listen(store), follow(store, "/c1")
    for number, name in enumerate(NAMES):
        publish(store, name, number)
    store.publish_many([Publication(name, b'{"data":1}', 10, 10) for name in NAMES], PublicationId("l", 1))
    eventually(lambda: len(all_of_it.messages) == 2 * len(NAMES))
    eventually(lambda: some.data == [1, 1])
    some.let_go("/c1")
    store.renew_epoch(store.state(3).epoch, 3)
    assert store.last_ids(["/c1", "/none"]) == [2, 0]
    store.announce("x")
    eventually(lambda: all_of_it.told("announced") == ["x"])
    store.report("w", "x")
    assert store.reports() == {"w": "x"}
    store.withdraw("w")
    store.forget("/none")
    assert len(store.channels().names) == len(NAMES)
    store.expire_all_backlogs()
    store.reset()
    assert "may not" not in caplog.text


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        *(("-spublish", "spublish"), ("-ssubscribe", "ssubscribe"), ("-setbit", "setbit")),
        ("resetchannels", "spublish"),
    ],
)
def test_a_user_with_too_few_rights_is_told_at_the_start_and_the_line_that_it_is_given_mends_it(
    user_url: Callable[[str], str],
    empty_cluster: RedisCluster,
    open_cluster: OpenStore,
    caplog: pytest.LogCaptureFixture,
    lacking: str,
    missing: str,
) -> None:
    store = open_cluster(user_url(f"{redis_cluster_rights('_message_bus_0_announcements')} {lacking}"))
    recorder = Recorder()
    store.listen(recorder)
    error = eventually(lambda: [record for record in caplog.records if "may not run" in record.message])[0]
    assert error.levelno == logging.ERROR
    assert re.search(rf"may not run [^;]*\b{missing}\b", error.message)
    assert "pw" not in caplog.text
    line = re.search(r"ACL SETUSER <user> (.*)", error.message)
    assert line
    for server in empty_cluster.servers:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "bus", *line[1].split())
    eventually(lambda: len(recorder.told("started")) == P)
    publish(store, "/a", 1)


def test_a_user_who_may_not_ask_where_the_slots_are_is_told_so(
    user_url: Callable[[str], str], open_cluster: OpenStore
) -> None:
    store = open_cluster(user_url(f"{redis_cluster_rights('_message_bus_0_announcements')} -cluster"))
    with pytest.raises(PublishRefused, match=r"cluster\|slots.*ACL SETUSER") as refused:
        store.publish("/a", b"{}", **LIMITS)
    assert refused.value.reason == "forbidden"


def test_the_doctor_looks_at_each_node(user_url: Callable[[str], str], empty_cluster: RedisCluster) -> None:
    found = {each.check: each for each in check_store(empty_cluster.url(P))}
    assert found["store: cluster"].found == f"{P} partitions on 3 nodes"
    for server in empty_cluster.primaries():
        assert found[f"store: rights of 127.0.0.1:{server.port}"].result == "ok"
    poor = user_url(f"{redis_cluster_rights('_message_bus_0_announcements')} -hset")
    results = [each for each in check_store(poor) if each.check.startswith("store: rights")]
    assert {(each.result, each.found) for each in results} == {("fail", "may not run hset")}
    with pytest.raises(NoStore, match="16 partitions"):
        check_store(empty_cluster.url(4))


def test_a_cluster_that_speaks_tls(tmp_path: Path, open_cluster: OpenStore) -> None:
    certificate, key = make_certificate(tmp_path)
    settings = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    tls = ("--tls-cluster", "yes", "--tls-ca-cert-file", str(certificate))
    server = RedisServer(tls=(certificate, key), settings=(*settings, *tls))
    try:
        server.start()
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        url = f"rediss+cluster://127.0.0.1:{server.tls_port}/?partitions={P}"
        with pytest.raises(BackendUnavailable, match="certificate"):
            open_cluster(url).state()
        store = open_cluster(f"{url}&ssl_ca_certs={certificate}")
        recorder = listen(store)
        # More than one TLS record, and more than one read.
        store.publish("/a", encode_envelope(b'"' + b"x" * 1_000_000 + b'"'), **LIMITS)
        eventually(lambda: [len(message.raw) for message in recorder.messages] == [1_000_002])
    finally:
        server.stop()
