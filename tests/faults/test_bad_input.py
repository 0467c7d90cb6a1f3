"""Everything that can be wrong with a record, between good ones: each ends once, and the worker does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loadtest.kafka import KafkaCluster
from tests.integration.models import champion, model
from tests.integration.outputs import Reader, differing
from tests.integration.shop import shop
from tests.integration.tape import PARTITIONS, Place, Record, Tape, payments
from tests.integration.worker import Servers, ran_out

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]
TS = 1_735_689_700_000


class Bad(NamedTuple):
    """A record that cannot be used, and what its dead letter must name."""

    value: bytes | None
    stage: str = "decode"
    field: str = ""
    key: bytes | None = b"u00001"


def payment(**changed: bytes) -> bytes:
    """A payment as JSON text; fields by name as JSON text, None to leave one out."""
    fields = {"payment_id": b'"x"', "user_id": b'"u00001"', "merchant": b'"m"', "amount": b"5.0", "ts": b"%d" % TS}
    fields |= changed
    return b"{" + b",".join(b'"%b":%b' % (n.encode(), v) for n, v in fields.items() if v) + b"}"


BAD = {
    "malformed": Bad(b'{"payment_id":'),
    "not an object": Bad(b"[1,2]"),
    "text after it": Bad(payment() + b"}"),
    "invalid utf-8": Bad(payment(payment_id=b'"\xff\xfe"')),
    "binary": Bad(bytes(range(256))),
    "a text for a number": Bad(payment(amount=b'"12"'), field="amount"),
    "a number for a text": Bad(payment(payment_id=b"12"), field="payment_id"),
    "a fraction for a time": Bad(payment(ts=b"1.5"), field="ts"),
    "null": Bad(payment(amount=b"null"), field="amount"),
    "missing field": Bad(payment(amount=b""), field="amount"),
    "missing time": Bad(payment(ts=b""), field="ts"),
    "nan": Bad(payment(amount=b"NaN")),
    "infinity": Bad(payment(amount=b"-Infinity")),
    "a number beyond floats": Bad(payment(amount=b"1e999"), field="amount"),
    "a time of 30 digits": Bad(payment(ts=b"9" * 30), "time", "ts"),
    "null key": Bad(payment(), "key", "user_id", key=None),
    "a key of 10 kB": Bad(payment(user_id=b'"%b"' % (b"k" * 10_000)), "key", "user_id", key=b"k" * 10_000),
    "an id of 10 kB": Bad(payment(payment_id=b'"%b"' % (b"i" * 10_000)), "key", "payment_id"),
    "empty value": Bad(b""),
    "no value": Bad(None),
    "2 MB": Bad(b'{"x":"' + b"y" * 2_000_000 + b'"}', field="payment_id"),
    "2 MB of nothing": Bad(b" " * 2_000_000),
    "nested 10,000 deep": Bad(b"[" * 10_000 + b"]" * 10_000),
    "a field nested 10,000 deep": Bad(payment(amount=b'{"a":' * 10_000 + b"1" + b"}" * 10_000), field="amount"),
    "an unknown field nested 10,000 deep": Bad(payment(more=b"[" * 10_000 + b"]" * 10_000)),
    "2100": Bad(payment(ts=b"4102444800000"), "time", "ts"),
    "before 1970": Bad(payment(ts=b"-1"), "time", "ts"),
}
ODD = {
    "1970": payment(ts=b"1000"),
    "keys twice": payment(amount=b'1.0,"amount":7.5'),
    "30 digits": payment(amount=b"1" * 30),
    "unknown fields": payment(more=b'{"a":[1,2,{"b":null}]}'),
    "an integer for a float": payment(amount=b"3"),
    "quotes and controls in the id": payment(payment_id=rb'"a\",\"b\\\u0000\n%s\u2028"'),
    "an empty id": payment(payment_id=b'""'),
    "the smallest float": payment(amount=b"5e-324"),
}
"""Records that are scored: their values are what JSON says, and oracle and worker agree on it."""


def mixed(good: Tape, tmp_path: Path) -> tuple[Tape, dict[Place, tuple[str, Bad]]]:
    """The good records with one of the others after every twenty, each kind twice; and where the bad ones lie."""
    others: list[tuple[str, Any]] = [*BAD.items(), *ODD.items()] * 2
    records: list[Record] = []
    for i, record in enumerate(good.records):
        records.append(record)
        if i % 20 == 19 and others:
            _, other = others.pop(0)
            value, key = (other.value, other.key) if isinstance(other, Bad) else (other, b"u00001")
            records.append(Record(0, 2, key, value, record.timestamp, None, not isinstance(other, Bad)))
    assert not others
    bad, offset = {}, 0
    names = {id(b.value): (name, b) for name, b in BAD.items()}
    for record in records:
        if record.partition == 2:
            if not record.usable:
                bad[2, offset] = names[id(record.value)]
            offset += 1
    return Tape(good.path, records), bad


def test_every_bad_record_is_a_dead_letter_once_and_every_other_one_a_prediction(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape, bad = mixed(payments(tmp_path, name, 2000), tmp_path)
    assert len(bad) == 2 * len(BAD)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1", max_message_bytes="4000000")
    version = model(tape, tmp_path, "1")
    champion(tape, real, version)
    with ran_out(tape.path, real) as worker:
        pid = worker.status()["pid"]
        tape.send(real.broker, per_s=2000)
        topics = tape.pipeline.topics
        with Reader(real.broker, topics.predictions) as scored, Reader(real.broker, topics.dead_letters) as dead:
            scored.until(lambda r: len(r.found) >= len(tape))
            dead.until(lambda r: len(r.found) >= len(bad))
            worker.caught_up()
            predictions, letters = scored.to_end(), dead.to_end()
        assert (worker.status()["pid"], worker.pid) == (pid, pid)
        assert worker.get("/health/ready")[0] == 200
        assert worker.metric("weir_dead_letters_total") == len(bad)
        assert worker.metric("weir_late_total") > 0, "the events of 1970 come too late, which is counted"
    assert sorted(o.source for o in predictions) == sorted(tape.expected)
    assert sorted(o.source for o in letters) == sorted(bad)
    assert not differing(predictions, tape)
    assert all(o.prediction["score"] is not None for o in predictions)
    for letter in letters:
        what, (value, stage, field, key) = bad[letter.source]
        headers = {name: text.decode() for name, text in letter.headers.items()}
        place = {"weir.topic": tape.topics[0], "weir.partition": "2", "weir.offset": str(letter.source[1])}
        assert {name: headers.get(name) for name in place} == place, what
        assert (headers["weir.stage"], headers["weir.field"]) == (stage, field), (what, headers)
        assert headers["weir.reason"], what
        if "weir.truncated" in headers:
            assert len(value or b"") > 1_000_000, what
            assert (value or b"").startswith(letter.value or b"?"), what
            assert str(len(value or b"")) in headers["weir.truncated"]
        else:
            assert letter.value == value, what
            assert len(value or b"") < 1_000_000, what
        assert letter.key == key, what


def test_bad_records_of_a_stream_that_is_only_learned_from_are_dead_letters_too(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    good = shop(tmp_path, name, 300)
    records = list(good.records)
    wrong = Record(1, 1, b"u1", b'{"user":"u1","seconds":"long","ts":1}', records[100].timestamp, None, False)
    records[100:100] = [wrong] * 3
    tape = Tape(good.path, records)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    with ran_out(tape.path, real) as worker:
        tape.send(real.broker)
        with (
            Reader(real.broker, tape.pipeline.topics.predictions) as scored,
            Reader(real.broker, tape.pipeline.topics.dead_letters) as dead,
        ):
            assert not differing(scored.until(lambda r: len(r.places()) >= len(tape)), tape)
            letters = dead.until(lambda r: len(r.found) >= 3)
            worker.caught_up()
    assert {(o.headers["weir.topic"].decode(), o.headers["weir.field"].decode()) for o in letters} == {
        (tape.topics[1], "seconds")
    }
