"""The command `weir`: what it prints where, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from examples.payments.model import write as write_model
from streams.cli import app
from streams.cli.checks import Check, check_retention, check_topics, judge_redis
from streams.loading import load_pipeline

ROOT = Path(__file__).parents[2]
PAYMENTS = str(ROOT / "examples/payments/pipeline.py")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WEIR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def weir(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def report(*arguments: str) -> Any:
    """The JSON object of a command that succeeds."""
    found = weir(*arguments, "--json")
    assert found.exit_code == 0, found.stderr
    assert found.stdout.count("\n") == 1
    return json.loads(found.stdout)


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# The process as a whole


def test_help_comes_at_once_and_names_every_command() -> None:
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    found = process("--help")
    took_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s
    assert found.returncode == 0
    for name in (
        "demo",
        "run",
        "worker",
        "monitor",
        "trainer",
        "status",
        "train",
        "bench",
        "doctor",
        "models",
        "drift",
        "retrain",
        "features",
        "config",
    ):
        assert f"\n  {name} " in found.stdout
    assert took_s < 1.0  # of processor time, whatever else the machine does


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "numba", "mlflow", "onnx", "faust", "rich", "pydantic", "confluent_kafka")
    code = f"import sys, streams.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_wrong_pipeline_file_is_one_line_and_exit_code_2() -> None:
    Path("bad.py").write_text("x = 1 / 0\n")
    found = process("features", "list", "bad.py")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "bad.py:1: ZeroDivisionError: division by zero\n"


def test_a_wrong_setting_is_one_line_and_exit_code_2() -> None:
    found = process("config", "show", WEIR_GUARANTEE="exactly_once")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("WEIR_GUARANTEE=exactly_once needs a real broker")
    assert found.stderr.count("\n") == 1


def test_the_traceback_is_in_the_log_at_level_debug() -> None:
    Path("bad.py").write_text("x = 1 / 0\n")
    found = process("features", "list", "bad.py", WEIR_LOG_LEVEL="debug", WEIR_LOG_FORMAT="json")
    log, line = found.stderr.strip().splitlines()[-2:]
    assert "ZeroDivisionError" in json.dumps(json.loads(log)["exception"])
    assert line == "bad.py:1: ZeroDivisionError: division by zero"


def test_an_unknown_command_is_exit_code_2() -> None:
    found = process("wrok")
    assert found.returncode == 2
    assert "No such command 'wrok'" in found.stderr


def test_ctrl_c_ends_without_a_traceback() -> None:
    Path("slow.py").write_text("import sys, time\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)\n")
    started = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "features", "list", "slow.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    assert started.stderr.readline() == "ready\n"
    started.send_signal(signal.SIGINT)
    _, rest = started.communicate(timeout=10)
    assert (started.returncode, rest) == (130, "")


# config


def test_config_show_is_one_json_object_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_REDIS", "redis://:hunter2@redis:6379")
    found = report("config", "show")
    assert found["WEIR_REDIS"] == "redis://:********@redis:6379"
    assert found["WEIR_COMMIT_INTERVAL"] == 100
    assert "hunter2" not in weir("config", "show").stdout


def test_config_show_says_which_variables_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_COMIT_INTERVAL", "100")
    found = weir("config", "show")
    assert found.stderr == "WEIR_COMIT_INTERVAL is not a setting; did you mean 'WEIR_COMMIT_INTERVAL'?\n"


# features


def test_features_list_gives_the_models_inputs_in_their_order() -> None:
    found = report("features", "list", PAYMENTS)
    assert [feature["name"] for feature in found["features"]][:3] == [
        "amount",
        "user_id_since_last",
        "user_id_count_1h",
    ]
    assert found["spec_hash"] == load_pipeline(PAYMENTS).spec.hash
    assert found["features"][2].items() >= {
        "name": "user_id_count_1h",
        "kind": "count",
        "of": None,
        "source": "payments",
        "entity": "user_id",
        "window": "1h",
    }.items()
    assert found["features"][2]["meaning"].startswith("number of events over the last hour")
    assert "user_id_mean_amount_24h" in weir("features", "list", PAYMENTS).stdout


def test_reading_features_while_nothing_runs_says_what_to_start() -> None:
    found = weir("features", "read", PAYMENTS, "user_id=u1")
    assert found.exit_code == 1
    assert found.stderr == (
        "the embedded redis of .weir does not run: start the pipeline (weir run PIPELINE), "
        "or set WEIR_REDIS to a real one\n"
    )


def test_an_entity_must_be_written_as_field_and_value() -> None:
    found = weir("features", "read", PAYMENTS, "u1")
    assert (found.exit_code, found.stderr) == (2, "'u1': write FIELD=VALUE, for example user_id=…\n")


def test_entities_are_read_once_a_worker_has_begun_their_partitions() -> None:
    from streams.embedded import start_embedded

    with start_embedded(Path(".weir")) as pair:
        early = weir("features", "read", PAYMENTS, "user_id=u1")
        wrong = weir("features", "read", PAYMENTS, "merchant=m1")
        asyncio.run(begin(pair.redis_url, PAYMENTS, partitions=2))
        found = report("features", "read", PAYMENTS, "user_id=u1")
        asked = ["--entity", "user_id=u1", "--entity", "user_id=u2", "--at", "1970-01-01T00:00:01Z"]
        two = report("features", "read", PAYMENTS, *asked, "--feature", "user_id_count_1h")
        table = weir("features", "read", PAYMENTS, "--entity", "user_id=u1").stdout
    assert (early.exit_code, wrong.exit_code) == (1, 2)
    assert early.stderr == "no worker of this pipeline has stored features yet: start one, or wait for it\n"
    assert wrong.stderr.startswith("field merchant: no feature is grouped by it")
    assert found["entity"] == {"user_id": "u1"}
    missing = {"value": 0.0, "state": "missing", "newest_ms": None, "age_s": None}
    assert found["features"]["user_id_count_1h"] == missing
    assert found["features"]["user_id_mean_amount_1h"]["value"] is None
    assert two["at"] == 1000
    assert [(one["entity"], one["features"]) for one in two["entities"]] == [
        ({"user_id": user}, {"user_id_count_1h": missing}) for user in ("u1", "u2")
    ]
    assert two["entities"][0]["checkpoint_age_s"] >= 0
    assert table.startswith("user_id=u1 (written by the worker ")


async def begin(url: str, pipeline: str, *, partitions: int) -> None:
    """Partitions as a worker begins them, without rows."""
    from features.redis_store import RedisStore
    from features.store import Meta

    loaded = load_pipeline(pipeline)
    store = RedisStore(url, loaded.name)
    for partition in range(partitions):
        epoch, _ = await store.claim(partition, partitions)
        await store.begin(partition, Meta(epoch, epoch, loaded.spec.state_hash, (0,)))
    await store.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no entity: add --entity user_id=…"),
        (("--entity", "user_id"), "'user_id': write FIELD=VALUE"),
        (("--entity", "user_id=1,user_id=2"), "user_id is there already; write --entity once for each"),
        (("user_id=1", "--at", "yesterday"), "--at yesterday: write ms since 1970"),
    ],
)
def test_a_read_that_cannot_be_understood_says_the_mend(options: tuple[str, ...], said: str) -> None:
    found = weir("features", "read", PAYMENTS, *options)
    assert found.exit_code == 2
    assert said in found.stderr


# models


def test_a_model_is_deployed_listed_and_rolled_back(tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "a.onnx", seed=1), write_model(tmp_path / "b.onnx", seed=2)
    one = report("models", "deploy", PAYMENTS, str(first))
    assert (one["version"], one["as"], one["published"]) == ("1", "champion", False)
    assert one["deployment"]["champion"]["sha256"]
    two = report("models", "deploy", PAYMENTS, str(second))
    assert two["deployment"]["champion"]["version"] == "2"
    listed = report("models", "list", PAYMENTS)
    assert [(v["version"], v["places"], v["fits"]) for v in listed["versions"]] == [
        ("2", ["champion"], True),
        ("1", [], True),
    ]
    back = report("models", "rollback", PAYMENTS)
    assert back["deployment"]["champion"]["version"] == "1"
    again = report("models", "deploy", PAYMENTS, str(first))
    assert again["deployment"] == back["deployment"]  # nothing to do
    assert "takes effect at the next start" in weir("models", "deploy", PAYMENTS, str(first)).stdout


def test_a_running_embedded_broker_gets_the_deployment(tmp_path: Path) -> None:
    from confluent_kafka import Consumer, TopicPartition

    from streams.embedded import start_embedded

    model = write_model(tmp_path / "a.onnx")
    with start_embedded(Path(".weir")) as pair:
        found = report("models", "deploy", PAYMENTS, str(model), "--as", "shadow")
        assert found["published"]
        consumer = Consumer({"bootstrap.servers": pair.broker, "group.id": "test", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition("payments.deployments", p, 0) for p in range(4)])
        message = consumer.poll(10)
        consumer.close()
    assert message is not None
    assert message.key() == b"payments"
    assert json.loads(message.value() or b"") == found["deployment"]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    Path("text.onnx").write_text("not a model")
    found = weir("models", "deploy", PAYMENTS, "text.onnx")
    assert found.exit_code == 2
    assert found.stderr.startswith("text.onnx: not an ONNX")
    missing = weir("models", "deploy", PAYMENTS, "none.onnx")
    assert (missing.exit_code, missing.stderr) == (2, "none.onnx cannot be read: No such file or directory\n")


def test_there_is_nothing_to_roll_back_to_before_two_deployments() -> None:
    found = weir("models", "rollback", PAYMENTS)
    assert found.exit_code == 1
    assert found.stderr == "payments has no deployment before the current one to go back to\n"


# train


def test_training_without_an_archive_says_what_to_do() -> None:
    found = weir("train", PAYMENTS)
    assert found.exit_code == 1
    assert found.stderr == "no archive at .weir/archive/payments; run the pipeline with labels first\n"


def test_a_wrong_date_is_wrong_use() -> None:
    found = weir("train", PAYMENTS, "--from", "January")
    assert found.exit_code == 2
    assert found.stderr == "--from January: write a day or time such as 2013-03-01 or 2013-03-01T12:00\n"


# doctor


def test_doctor_reports_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report("doctor", PAYMENTS)
    names = [check["name"] for check in found["checks"]]
    expected = (
        "python",
        "packages",
        "settings",
        "data directory",
        "broker",
        "redis",
        "registry",
        "onnx",
        "kernels",
    )
    assert [name for name in expected if name not in names] == []
    assert found["ok"]


def test_doctor_fails_with_the_mend_when_servers_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_BROKER", "127.0.0.1:1")
    monkeypatch.setenv("WEIR_REDIS", "redis://127.0.0.1:1")
    found = weir("doctor", "--json")
    assert found.exit_code == 1
    failed = {check["name"]: check["mend"] for check in json.loads(found.stdout)["checks"] if check["state"] == "fail"}
    assert failed == {
        "broker": "start it, or see WEIR_BROKER and WEIR_SECURITY_*",
        "redis": "start it, or see WEIR_REDIS",
    }


@pytest.mark.parametrize(
    ("info", "state", "mend"),
    [
        ({"redis_version": "6.2.20"}, "fail", "use Redis 7 or later, or Valkey"),
        ({"redis_version": "7.2.10"}, "warn", "CVE-2025-49844"),
        ({"redis_version": "7.2.11"}, "ok", ""),
        ({"redis_version": "7.0.15"}, "warn", "CVE-2025-49844"),
        ({"redis_version": "8.2.2"}, "ok", ""),
        ({"redis_version": "8.4.0"}, "ok", ""),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.3"}, "warn", "CVE-2025-49844"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0"}, "ok", ""),
    ],
)
def test_doctor_knows_which_redis_is_too_old(info: dict[str, str], state: str, mend: str) -> None:
    found = next(judge_redis(info))
    assert found.state == state
    assert mend in found.mend


def test_doctor_refuses_a_redis_that_drops_rows() -> None:
    *_, memory = judge_redis({"redis_version": "8.4.0", "maxmemory": 1000, "maxmemory_policy": "allkeys-lru"})
    assert memory.state == "fail"
    assert memory.mend.startswith("set maxmemory-policy noeviction")


def test_doctor_compares_the_pipelines_topics() -> None:
    pipeline = load_pipeline(str(ROOT / "examples/flights/pipeline.py"))
    found = check_topics(pipeline, {"flights.requests": 4, "flights.departures": 8, "flights.predictions": 2})
    assert [(check.name, check.state) for check in found] == [
        ("topic flights.arrivals", "fail"),
        ("co-partitions", "fail"),
        ("topic flights.predictions", "fail"),
    ]


def test_doctor_compares_retention_with_the_longest_window() -> None:
    day_ms = 86_400_000
    short = check_retention("t", 30 * day_ms, {"retention.ms": str(7 * day_ms), "cleanup.policy": "delete"})
    assert short == Check(
        "retention t",
        "warn",
        "7 d, features look back 30 d",
        f"set retention.ms to at least {30 * day_ms}: a rebuild of state reads it",
    )
    assert check_retention("t", day_ms, {"retention.ms": str(7 * day_ms)}).state == "ok"
    assert check_retention("t", day_ms, {"retention.ms": "-1"}).state == "ok"
    assert check_retention("t", day_ms, {"cleanup.policy": "compact"}).state == "warn"
