"""Deployments while events flow: every prediction is of one of them, and its scores are those of the named versions."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadtest.kafka import KafkaCluster
from models import rollout
from models.rollout import Deployment
from tests.faults.feeding import feeding, made
from tests.integration.models import assert_scores, champion, deploy, model
from tests.integration.outputs import assert_right, predictions
from tests.integration.tape import PARTITIONS, payments
from tests.integration.worker import Servers, Worker, ran_out

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def in_use(worker: Worker, deployment: Deployment) -> None:
    """Waits until events of every partition have been scored with it."""
    worker.wait_for(lambda: bool(worker.status()["deployment"] == deployment.id), 30)
    enough = made(worker) + 200
    worker.wait_for(lambda: made(worker) > enough, 60)


def refused(worker: Worker, because: str, instead: Deployment) -> None:
    """Waits until the newest deployment is refused with this reason; the one before stays."""
    worker.wait_for(lambda: because in str(worker.status()["refused"]), 30)
    assert worker.status()["deployment"] == instead.id


def test_versions_switch_between_rounds_and_a_refused_one_changes_nothing(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 6000)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    v1, v2, v3, narrow = (model(tape, tmp_path, v, width=5 if v == "5" else None) for v in "1235")
    spoilt = msgspec.structs.replace(model(tape, tmp_path, "4"), sha256="0" * 64)
    stranger = msgspec.structs.replace(model(tape, tmp_path, "6"), spec_hash="f" * 16)
    with ran_out(tape.path, real) as worker:
        with feeding(tape, real, (0, len(tape.records)), per_s=500):
            worker.wait_for(lambda: worker.status()["unscored"] > 100, 30)
            first = champion(tape, real, v1)
            in_use(worker, first)
            second = deploy(tape, real, rollout.promote(first, v2))
            in_use(worker, second)
            for wrong, reason in ((spoilt, "SHA-256"), (narrow, "5"), (stranger, "other features")):
                deploy(tape, real, rollout.promote(second, wrong))
                refused(worker, reason, second)
            third = deploy(tape, real, rollout.add_shadow(second, v3))
            in_use(worker, third)
            fourth = deploy(tape, real, rollout.rollback(third, first))
            in_use(worker, fourth)
        found = predictions(real.broker, tape)
        worker.caught_up()
    assert_right(found, tape)
    assert_scores(tape, [o for o in found if o.prediction["version"]], [v1, v2, v3])
    champions = {None: None, first.id: "1", second.id: "2", third.id: "2", fourth.id: "1"}
    order = [None, first.id, second.id, third.id, fourth.id]
    for output in found:
        said = output.prediction
        assert said["version"] == champions[said["deployment"]]
        assert set(said["shadows"]) == ({"3"} if said["deployment"] == third.id else set())
        assert said["arm"] == ("champion" if said["version"] else None)
        assert (said["score"] is None) == (said["version"] is None)
    for partition in range(PARTITIONS):
        of_partition = sorted((o for o in found if o.partition == partition), key=lambda o: o.offset)
        places = [order.index(o.prediction["deployment"]) for o in of_partition]
        assert places == sorted(places), "a deployment that was left came back"
        assert set(places) == set(range(5)), "each of them scored something"


def test_a_worker_that_starts_has_read_the_deployments_before_its_first_event(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 500)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    v1, v2 = model(tape, tmp_path, "1"), model(tape, tmp_path, "2")
    canary = deploy(tape, real, rollout.add_canary(champion(tape, real, v1), v2, 0.3))
    tape.send(real.broker)
    with ran_out(tape.path, real):
        found = predictions(real.broker, tape)
    assert {o.prediction["deployment"] for o in found} == {canary.id}
    assert_scores(tape, found, [v1, v2])
    keys = {arm: [o.key for o in found if o.prediction["arm"] == arm] for arm in ("champion", "canary")}
    assert 0.1 < len(keys["canary"]) / len(found) < 0.5
    assert not set(keys["champion"]) & set(keys["canary"]), "a key has one arm"
