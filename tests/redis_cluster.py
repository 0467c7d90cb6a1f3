"""A real Redis Cluster for tests: processes of their own on free ports, the slots shared out by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.cluster import RedisCluster

from streams.ports import held_ports
from tests.redis_server import RedisServer

SLOTS = 16384
_OPTIONS = ("--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0")
_FAILOVER_MS = 2000
"""Without an answer for so long, a primary counts as dead where there is a replica; else Redis' default holds."""
_READY_S = 60.0


class Cluster:
    """`primaries` servers that share the slots, and one replica each if asked for: about a second to start."""

    def __init__(self, folder: Path, *, primaries: int = 3, replicas: bool = False) -> None:
        self._folder = folder
        self._options = ("--cluster-node-timeout", str(_FAILOVER_MS)) if replicas else ()
        self.nodes = [self._node(number) for number in range(primaries)]
        self.replicas = [self._node(primaries + number) for number in range(primaries if replicas else 0)]

    @property
    def url(self) -> str:
        """Of one node."""
        return self.nodes[0].url

    @property
    def urls(self) -> str:
        """Of all nodes that were primaries at first."""
        return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def admin(self) -> Any:
        """A client for what a test does to the cluster: it speaks to the node of a key, or to all."""
        return RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def all_keys(self) -> list[bytes]:
        """All keys."""
        with self.admin() as admin:
            return [key for node in admin.get_primaries() for key in admin.keys(target_nodes=node)]

    def node_of(self, key: bytes) -> RedisServer:
        """The primary that has a key."""
        with self.admin() as admin:
            port = admin.get_node_from_key(key).port
        return next(node for node in (*self.nodes, *self.replicas) if node.port == port)

    def move(self, key: bytes, target: RedisServer) -> None:
        """Gives the slot of `key`, and all that is in it, to another primary, as a reshard does."""
        source = self.node_of(key)
        self.begin_move(key, source, target)
        self.end_move(key, source, target)

    def begin_move(self, key: bytes, source: RedisServer, target: RedisServer, moved: Sequence[bytes] = ()) -> None:
        """Begins to move the slot of `key`; the keys `moved` of it are there already."""
        with source.admin() as old, target.admin() as new:
            slot = old.execute_command("CLUSTER KEYSLOT", key)
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", _id(source))
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", _id(target))
            if moved:
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *moved)

    def end_move(self, key: bytes, source: RedisServer, target: RedisServer) -> None:
        with source.admin() as old, target.admin() as new:
            slot = old.execute_command("CLUSTER KEYSLOT", key)
            old.response_callbacks.pop("CLUSTER GETKEYSINSLOT", None)  # it makes texts of keys that are none
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for node in (new, old):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", _id(target))
        for other in self.nodes:
            if other not in (source, target):
                with other.admin() as one:
                    one.execute_command("CLUSTER SETSLOT", slot, "NODE", _id(target))

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in (*self.nodes, *self.replicas):
            node.kill()

    def _start(self) -> None:
        for node in (*self.nodes, *self.replicas):
            node.start()
        bounds = [SLOTS * number // len(self.nodes) for number in range(len(self.nodes) + 1)]
        for number, node in enumerate(self.nodes):
            with node.admin() as admin:
                admin.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                admin.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in (*self.nodes[1:], *self.replicas):
            with self.nodes[0].admin() as admin:
                admin.execute_command("CLUSTER MEET", "127.0.0.1", node.port, node.bus_port)
        for primary, replica in zip(self.nodes, self.replicas, strict=False):
            self._until(lambda replica=replica, primary=primary: _follow(replica, primary))
        self._until(lambda: all(map(self._agrees, (*self.nodes, *self.replicas))))

    def _node(self, number: int) -> _Node:
        folder = self._folder / str(number)
        folder.mkdir()
        return _Node(folder, *self._options)

    def _agrees(self, node: RedisServer) -> bool:
        with node.admin() as admin:
            info = admin.cluster("INFO")
            known = int(info["cluster_known_nodes"]) == len(self.nodes) + len(self.replicas)
            slots = admin.execute_command("CLUSTER SLOTS")
            followed = len(slots) == len(self.nodes) and all(len(slot) == (4 if self.replicas else 3) for slot in slots)
            return bool(info["cluster_state"] == "ok" and known and followed)

    def _until(self, what: Any) -> None:
        deadline = time.monotonic() + _READY_S
        while not what():
            assert time.monotonic() < deadline, "the cluster did not come up"
            time.sleep(0.02)


class _Node(RedisServer):
    """A node of a cluster."""

    def __init__(self, folder: Path, *options: str) -> None:
        bus = held_ports(1)
        (self.bus_port,) = bus
        super().__init__("redis", folder, *_OPTIONS, "--cluster-port", str(self.bus_port), *options)
        self._held |= bus


def _id(node: RedisServer) -> bytes:
    with node.admin() as admin:
        found: bytes = admin.execute_command("CLUSTER MYID")
        return found


def _follow(replica: RedisServer, primary: RedisServer) -> bool:
    with replica.admin() as admin:
        try:
            admin.execute_command("CLUSTER REPLICATE", _id(primary))
        except redis.ResponseError:  # it does not know the primary yet
            return False
    return True
