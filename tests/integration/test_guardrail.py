"""A model that has learnt nothing is forced past the gate: it is taken back by itself, and scoring never stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from confluent_kafka.admin import AdminClient

from loadtest.kafka import KafkaCluster
from models.trainer import train_mlp
from streams.monitor import archive_folder
from streams.training import read_dataset
from tests.faults.looping import Looping
from tests.faults.system import wait
from tests.integration.models import settings_of
from tests.integration.worker import ROOT

LONG_S = 180.0


@dataclass
class Ground:
    folder: Path
    kafka: KafkaCluster
    admin: AdminClient


def test_a_model_trained_on_shuffled_labels_is_rolled_back(kafka: KafkaCluster, tmp_path: Path) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.address})
    with Looping(Ground(tmp_path, kafka, admin)) as system:
        assert system.pipeline.rollout is not None
        # Not while it trains, which may take long: the feed is needed for what comes after.
        send_until(system, lambda: system.role("trainer").status().get("champion") == "1", rests=system.working_off)
        first = system.sent
        bad = deploy_what_learnt_nothing(system)
        send_until(system, lambda: system.role("trainer").status().get("champion") == bad)
        send_until(system, lambda: system.role("trainer").status().get("champion") == "1")
        system.send(2.0)
        system.settled()

        (rolled_back,) = [a for m in system.read(system.pipeline.topics.alerts)
                          if (a := json.loads(m.value()))["kind"] == "rolled_back"]  # fmt: skip
        assert rolled_back["version"] == bad
        predictions = [json.loads(m.value()) for m in system.read(system.pipeline.topics.predictions)]
        sent = sum(record.stream == 0 for record in system.records[: system.sent])
        wait(lambda: len(system.read(system.pipeline.topics.predictions)) == sent, LONG_S, lambda: "predictions")
        by_bad = [p for p in predictions if p["version"] == bad]
        assert 0 < len(by_bad) <= system.pipeline.rollout.guard_rows + 3 * 1200  # a block is judged once it has closed
        later = [p for p in predictions if p["time"] > system.records[first].timestamp + 600_000]
        assert all(p["score"] is not None for p in later)


def send_until(system: Looping, done: Callable[[], bool], rests: Callable[[], bool] = lambda: False) -> None:
    """Sends, close to the blocks, until `done`; nothing while it `rests`."""

    def step() -> bool:
        if not system.ahead() and not rests():
            assert system.send(0.3) or done(), "the feed is over"
        return done()

    wait(step, LONG_S, lambda: f"{[m.status() for m in system.fleet.members]}")


def deploy_what_learnt_nothing(system: Looping) -> str:
    """`weir models deploy` of a model of the archive's rows with their labels shuffled; returns its version."""
    folder = archive_folder(system.pipeline, settings_of(system.servers))
    data = read_dataset(system.pipeline, folder)
    shuffled = replace(data, labels=np.random.default_rng(1).permutation(data.labels))
    file = train_mlp(shuffled, system.folder / "nothing.onnx").path
    command = [sys.executable, "-m", "streams.cli", "models", "deploy", str(system.path), str(file), "--json"]
    done = subprocess.run(
        command, env=system.role("worker")._environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["version"])
