"""The join's state in a real Redis: segments count with their commit, and not before."""

from __future__ import annotations

import pytest

from monitors.join import Label
from monitors.join_store import JoinStateLost, JoinStateTaken, JoinStore, JoinStoreAway, Segment
from tests.redis_cluster import Cluster
from tests.redis_server import RedisServer

TTL_MS = 60_000


@pytest.fixture
def store(redis_server: RedisServer, request: pytest.FixtureRequest) -> JoinStore:
    return JoinStore(redis_server.url, request.node.name, TTL_MS)


def segment(name: str) -> Segment:
    return Segment((f'{{"id":"{name}"}}'.encode(),), (Label(name, 5, 1.0, 2),))


def test_what_was_written_for_a_commit_is_there_as_of_that_commit(store: JoinStore) -> None:
    store.write("ab", 1, b"one", segment("x"))
    store.write("ab", 2, b"two", Segment())
    store.write("ab", 3, b"three", segment("y"))
    loaded = store.load("ab", 3)
    assert loaded is not None
    assert loaded.state == b"three"
    assert loaded.segments == [(1, segment("x")), (3, segment("y"))]


def test_a_segment_of_a_commit_that_never_came_is_not_looked_at(store: JoinStore) -> None:
    store.write("ab", 1, b"one", segment("x"))
    store.write("ab", 2, b"two", segment("y"))
    loaded = store.load("ab", 1)
    assert loaded is not None
    assert (loaded.state, loaded.segments) == (b"one", [(1, segment("x"))])
    store.write("ab", 2, b"two again", Segment())
    again = store.load("ab", 2)
    assert again is not None
    assert (again.state, again.segments) == (b"two again", [(1, segment("x"))])


def test_segments_that_nobody_needs_go(store: JoinStore) -> None:
    for number in (1, 2, 3):
        store.write("ab", number, b"state", segment(str(number)))
    store.drop("ab", [1, 3])
    store.drop("ab", [])
    loaded = store.load("ab", 3)
    assert loaded is not None
    assert [number for number, _ in loaded.segments] == [2]


def test_incarnations_do_not_meet(store: JoinStore) -> None:
    store.write("ab", 1, b"one", segment("x"))
    assert store.load("cd", 1) is None
    store.write("cd", 1, b"other", Segment())
    loaded = store.load("cd", 1)
    assert loaded is not None
    assert (loaded.state, loaded.segments) == (b"other", [])


def test_state_that_is_gone_or_not_whole_is_said_to_be(store: JoinStore, redis_server: RedisServer) -> None:
    assert store.load("ab", 1) is None
    store.write("ab", 1, b"one", segment("x"))
    store.write("ab", 2, b"two", segment("y"))
    assert store.load("ab", 7) is None
    with redis_server.admin() as admin:
        for key in admin.scan_iter("*:segment:ab:1"):
            admin.delete(key)
    assert store.load("ab", 2) is None


def test_every_key_expires(store: JoinStore, redis_server: RedisServer, request: pytest.FixtureRequest) -> None:
    store.write("ab", 1, b"one", segment("x"))
    with redis_server.admin() as admin:
        keys = [key for key in admin.scan_iter("*") if request.node.name.encode() in key]
        assert len(keys) == 3
        assert all(0 < admin.pttl(key) <= TTL_MS for key in keys)


def test_a_server_that_is_away_is_an_error_that_names_it(store: JoinStore, redis_server: RedisServer) -> None:
    redis_server.kill()
    with pytest.raises(JoinStoreAway, match=str(redis_server.port)):
        store.write("ab", 1, b"one", segment("x"))
    redis_server.start()
    store.write("ab", 1, b"one", segment("x"))
    assert store.load("ab", 1) is not None


def test_a_redis_that_lost_its_data_under_a_monitor_is_found_out_before_the_next_write(
    store: JoinStore, redis_server: RedisServer
) -> None:
    store.write("ab", 1, b"one", segment("x"))
    with redis_server.admin() as admin:
        admin.flushall()
    with pytest.raises(JoinStateLost):
        store.write("ab", 2, b"two", segment("y"))
    assert store.load("ab", 2) is None


def test_a_monitor_whose_place_was_taken_writes_nothing(redis_server: RedisServer) -> None:
    first, second = (JoinStore(redis_server.url, "taken", TTL_MS) for _ in range(2))
    first.write("ab", 1, b"one", segment("x"))
    assert second.load("ab", 1) is not None
    with pytest.raises(JoinStateTaken):
        first.write("ab", 2, b"a ghost's", segment("ghost"))
    second.write("ab", 2, b"two", Segment())
    loaded = second.load("ab", 2)
    assert loaded is not None
    assert (loaded.state, loaded.segments) == (b"two", [(1, segment("x"))])
    first.close()
    second.close()


@pytest.mark.parametrize("kind", ["head", "segment"])
def test_what_cannot_be_read_is_not_there(store: JoinStore, redis_server: RedisServer, kind: str) -> None:
    store.write("ab", 1, b"one", segment("x"))
    with redis_server.admin() as admin:
        (key,) = (key for key in admin.scan_iter(f"*:{kind}:ab*") if b"not_there" in key)
        if kind == "head":
            admin.hset(key, "1", b"rubbish")
        else:
            admin.set(key, b"rubbish")
    assert store.load("ab", 1) is None


def test_of_a_cluster_the_node_that_has_the_keys_is_found_and_found_again_when_they_move(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        stores = [JoinStore(cluster.urls, f"shop{number}", TTL_MS) for number in range(6)]
        for number, store in enumerate(stores):
            store.write("ab", 1, b"one", segment(str(number)))
        key = b"weir:{shop0:monitor}:head:ab"
        before = cluster.node_of(key)
        cluster.move(key, next(node for node in cluster.nodes if node is not before))
        with pytest.raises(JoinStoreAway, match="Redis at"):
            stores[0].write("ab", 2, b"two", Segment())
        stores[0].write("ab", 2, b"two", Segment())
        for number, store in enumerate(stores):
            loaded = store.load("ab", 2 if number == 0 else 1)
            assert loaded is not None
            assert loaded.segments == [(1, segment(str(number)))]
            store.close()
        assert len({cluster.node_of(f"weir:{{shop{n}:monitor}}:head:ab".encode()) for n in range(6)}) > 1
