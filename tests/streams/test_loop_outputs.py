"""Commits of the monitor whose producer fails: which errors begin again, and which end the process."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams import loop_outputs
from streams.errors import WeirError
from streams.loop_outputs import CommitFailed, Record, Transactional


class Failing:
    """A producer: what it is asked to do is noted; `fails` names the call that raises."""

    def __init__(self, asked: list[str], fails: dict[str, KafkaError]) -> None:
        self._asked, self._fails = asked, fails

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> None:
            self._asked.append(name)
            if name in self._fails:
                raise KafkaException(self._fails[name])

        call.__name__ = name
        return call


class NoConsumer:
    def consumer_group_metadata(self) -> None:
        return None


@pytest.fixture
def asked() -> list[str]:
    return []


def outputs(monkeypatch: pytest.MonkeyPatch, asked: list[str], **fails: KafkaError) -> Transactional:
    monkeypatch.setattr(loop_outputs, "Producer", lambda _: Failing(asked, fails))
    consumer: Any = NoConsumer()
    made = Transactional({}, "t", lambda: consumer)
    made.start()
    return made


RECORD = Record("shop.blocks", b"k", b"value")


def test_a_transaction_that_failed_by_itself_is_begun_again(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    made = outputs(monkeypatch, asked, produce=KafkaError(KafkaError._STATE))
    with pytest.raises(CommitFailed):
        made.commit([RECORD], [])
    assert "abort_transaction" in asked
    assert "commit_transaction" not in asked


def test_a_record_that_is_too_large_ends_the_process_and_is_named(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    made = outputs(monkeypatch, asked, produce=KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(WeirError, match=r"a record of shop\.blocks has 5 bytes"):
        made.commit([RECORD], [])
    assert "commit_transaction" not in asked


def test_what_can_be_tried_again_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    monkeypatch.setattr(loop_outputs, "_PATIENCE_S", 0.3)
    again = KafkaError(KafkaError._TIMED_OUT, "late", False, True)
    with pytest.raises(CommitFailed):
        outputs(monkeypatch, asked, init_transactions=again)
    assert asked.count("init_transactions") > 1


def test_after_a_slow_commit_another_producer_writes(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    made = outputs(monkeypatch, asked)
    made.commit([RECORD], [])
    assert asked.count("init_transactions") == 1
    monkeypatch.setattr(loop_outputs, "SLOW_COMMIT_S", -1.0)
    made.commit([RECORD], [])
    assert asked.count("init_transactions") == 2
