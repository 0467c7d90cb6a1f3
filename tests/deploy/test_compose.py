"""The compose file and the images: what can be said of them without a container engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILES = ("deploy/Dockerfile", "deploy/mlflow.Dockerfile")


def test_all_services_are_there() -> None:
    assert set(SERVICES) == {
        "worker",
        "monitor",
        "trainer",
        "kafka",
        "redis",
        "mlflow",
        "jaeger",
        "prometheus",
        "grafana",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_whether_it_is_healthy(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert "\nHEALTHCHECK " in (ROOT / service["build"]["dockerfile"]).read_text()
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_files_and_volumes_that_a_service_names_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version(name: str) -> None:
    assert "build" in SERVICES[name] or re.search(r":v?\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", ["worker", "monitor", "trainer"])
def test_the_settings_of_a_service_are_settings_of_weir(name: str) -> None:
    from streams.settings import PREFIX, Settings

    known = {PREFIX + field.upper() for field in Settings.model_fields}
    given = set(SERVICES[name]["environment"])
    assert {variable for variable in given if variable.startswith(PREFIX)} <= known


@pytest.mark.parametrize("path", DOCKERFILES)
def test_an_image_runs_as_its_own_user_from_a_stage_with_locked_hashes(path: str) -> None:
    text = (ROOT / path).read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER (?!root)\w+$", last_stage, re.M)
    assert "--require-hashes" in text
    for copied in re.findall(r"requirements/\S+\.txt", text):
        assert (ROOT / copied).is_file()


def test_only_the_trainer_has_torch() -> None:
    """And it stands in a profile: the example that is served by default trains nothing."""
    arguments = {name: service["build"].get("args", {}) for name, service in SERVICES.items() if "build" in service}
    assert {name for name, given in arguments.items() if given} == {"trainer"}
    assert SERVICES["trainer"]["profiles"] == ["trainer"]
    assert SERVICES["trainer"]["image"] != SERVICES["worker"]["image"]
    lock = f"requirements/{arguments['trainer']['REQUIREMENTS']}.txt"
    assert re.search(r"^torch==", (ROOT / lock).read_text(), re.M)
    assert "ARG REQUIREMENTS=base" in (ROOT / "deploy/Dockerfile").read_text()


def test_the_build_context_has_what_the_image_copies_and_no_more() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {
        *("pyproject.toml", "README.md", "LICENSE", "requirements/*.txt"),
        *("streams", "features", "models", "monitors", "loadtest", "examples"),
    }


def test_prometheus_scrapes_the_services_of_weir() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) == {"worker", "monitor", "trainer"}
    assert found["port"] == 8321
    mounted = {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in (*config["rule_files"], "prometheus.yml")} <= mounted
