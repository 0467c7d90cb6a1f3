"""The embedded broker and Valkey: they answer, are found, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from streams.embedded import Embedded, find_embedded, start_embedded
from streams.errors import WeirError

OWNER = """
import sys, time
from pathlib import Path
from streams.embedded import start_embedded
embedded = start_embedded(Path(sys.argv[1]))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    with start_embedded(tmp_path / "data") as started:
        yield started


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with an embedded pair of `tmp_path`."""
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        yield process
        process.kill()


def redis_says(url: str, command: str) -> str:
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(65536).decode()


def listening(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def servers_of(pid: int) -> list[int]:
    """Process ids of the children of `pid` and of theirs."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in servers_of(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ")[-1][0] != "Z"
    except OSError:
        return False


def ends(pids: list[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.01)
    return not any(map(alive, pids))


def consumer_of(broker: str, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 3000,
            "heartbeat.interval.ms": 500,
        }
    )


def read(consumer: Consumer, count: int, within_s: float) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline:
        found += [message for message in consumer.consume(100, 0.05) if message.error() is None]
    return found


def test_the_broker_keeps_key_value_headers_and_time_of_a_record(embedded: Embedded) -> None:
    producer = Producer({"bootstrap.servers": embedded.broker})
    producer.produce(
        "t", b"value", key=b"key", headers=[("h", b"1")], timestamp=1_357_000_000_000, partition=3
    )
    assert producer.flush(10) == 0
    consumer = consumer_of(embedded.broker, "g")
    consumer.subscribe(["t"])
    (record,) = read(consumer, 1, within_s=10)
    consumer.close()
    assert (record.key(), record.value(), record.headers()) == (b"key", b"value", [("h", b"1")])
    assert (record.timestamp()[1], record.partition(), record.offset()) == (1_357_000_000_000, 3, 0)


def test_the_first_member_of_a_group_reads_within_two_seconds(embedded: Embedded) -> None:
    producer = Producer({"bootstrap.servers": embedded.broker})
    producer.produce("t", b"value")
    assert producer.flush(10) == 0
    consumer = consumer_of(embedded.broker, "g")
    consumer.subscribe(["t"])
    assert len(read(consumer, 1, within_s=2)) == 1
    consumer.close()


def test_a_commit_keeps_its_metadata(embedded: Embedded) -> None:
    Producer({"bootstrap.servers": embedded.broker}).list_topics(
        "t", timeout=10
    )  # its question creates the topic
    consumer = consumer_of(embedded.broker, "g")
    consumer.commit(offsets=[TopicPartition("t", 0, 5, "wm=123")], asynchronous=False)
    (committed,) = consumer.committed([TopicPartition("t", 0)], timeout=10)
    consumer.close()
    assert (committed.offset, committed.metadata) == (5, "wm=123")


def test_valkey_answers_and_keeps_everything_in_memory_only(embedded: Embedded) -> None:
    assert redis_says(embedded.redis_url, "PING") == "+PONG\r\n"
    assert redis_says(embedded.redis_url, "CONFIG GET save").endswith("$0\r\n\r\n")
    assert redis_says(embedded.redis_url, "CONFIG GET maxmemory-policy").endswith("noeviction\r\n")


def test_a_running_pair_is_found_by_its_directory_until_it_stops(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert find_embedded(data) is None
    with start_embedded(data) as embedded:
        assert find_embedded(data) == embedded.addresses
        assert embedded.addresses.pid == os.getpid()
    assert find_embedded(data) is None
    assert not (data / "embedded.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stop_ends_both_servers_and_may_be_called_twice(tmp_path: Path) -> None:
    before = servers_of(os.getpid())
    embedded = start_embedded(tmp_path)
    started = [pid for pid in servers_of(os.getpid()) if pid not in before]
    assert len(started) == 3  # the broker, and Valkey with the process that watches over it
    embedded.stop()
    embedded.stop()
    assert ends(started)


def test_a_second_pair_of_one_directory_is_refused_by_its_owners_name(
    embedded: Embedded, tmp_path: Path
) -> None:
    with pytest.raises(WeirError, match=rf"running already \(process {os.getpid()}\).*WEIR_DATA_DIR"):
        start_embedded(tmp_path / "data")


def test_another_process_finds_the_pair(owner: subprocess.Popen[bytes], tmp_path: Path) -> None:
    found = find_embedded(tmp_path)
    assert found is not None
    assert found.pid == owner.pid
    assert listening(found.broker)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_nothing_is_left_of_a_pair_whose_owner_was_killed(
    owner: subprocess.Popen[bytes], tmp_path: Path, how: signal.Signals
) -> None:
    servers = servers_of(owner.pid)
    assert len(servers) == 3
    owner.send_signal(how)
    owner.wait()
    assert ends(servers)
    assert find_embedded(tmp_path) is None  # although embedded.json is still there
    with start_embedded(tmp_path) as embedded:
        assert find_embedded(tmp_path) == embedded.addresses


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_valkey_ends_with_the_process_that_watches_over_it(owner: subprocess.Popen[bytes]) -> None:
    (valkey,) = (s for s in servers_of(owner.pid) if "valkey-server" in Path(f"/proc/{s}/comm").read_text())
    watcher = int(Path(f"/proc/{valkey}/stat").read_text().rsplit(") ")[-1].split()[1])
    os.kill(watcher, signal.SIGKILL)
    assert ends([valkey])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_in_the_terminal_does_not_reach_the_servers(tmp_path: Path) -> None:
    before = servers_of(os.getpid())
    with start_embedded(tmp_path):
        groups = {os.getpgid(pid) for pid in servers_of(os.getpid()) if pid not in before}
    assert groups
    assert os.getpgid(0) not in groups


def test_a_server_that_cannot_start_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(WeirError, match=r"^the embedded broker did not start: .*embedded-broker\.log\)$"):
        start_embedded(tmp_path)
    assert find_embedded(tmp_path) is None


def test_the_state_file_is_readable_json(embedded: Embedded, tmp_path: Path) -> None:
    written = json.loads((tmp_path / "data" / "embedded.json").read_text())
    assert written == {"broker": embedded.broker, "redis_url": embedded.redis_url, "pid": os.getpid()}
