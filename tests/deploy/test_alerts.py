"""The alert rules: they speak of metrics that there are, notice what they should, and are explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitors.metrics import METRICS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
TESTS = ("alerts_test.yml", "alerts_slow_test.yml")
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
TABLE = {row.name: {*row.labels} for row in METRICS}
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)"
)


def metrics_of(expression: str) -> dict[str, set[str]]:
    """Metrics that an expression names, with the labels that it selects them by."""
    found: dict[str, set[str]] = {}
    for name, _, selector in re.findall(r"\b((?:weir_\w+)|up)\b(\{([^}]*)\})?", expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
    return found


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_speaks_of_metrics_and_labels_of_the_table(alert: dict[str, Any]) -> None:
    named = metrics_of(alert["expr"])
    assert named
    for name, labels in named.items():
        assert name == "up" or labels <= TABLE[name], name
    known = set().union(*(TABLE.get(name, set()) for name in named)) | SCRAPED
    for group in re.findall(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)", alert["expr"]):
        assert {label.strip() for label in group.split(",") if label.strip()} <= known
    # What the text says must be left of the labels: those of `by`, or all.
    said = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    first = re.search(r"^\s*\(?\s*sum by \(([^)]*)\)", alert["expr"])
    assert said <= ({label.strip() for label in first[1].split(",")} if first else known)


def test_states_and_results_that_alerts_select_are_those_that_are_counted() -> None:
    """A value that the table's text does not name is one that nobody sets."""
    meanings = {row.name: row.meaning for row in METRICS}
    for alert in ALERTS:
        for name, selector in re.findall(r"(weir_\w+)\{([^}]*)\}", alert["expr"]):
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                for one in value.split("|"):
                    if label not in ("arm", "side"):
                        assert one in meanings[name], (alert["alert"], one)


def test_every_alert_has_a_severity_and_says_one_thing() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(names) == len(set(names))
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(alert["annotations"]) == {"summary"}


def test_every_alert_is_seen_to_fire() -> None:
    fired = {
        case["alertname"]
        for name in TESTS
        for test in yaml.safe_load((RULES.parent / name).read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == {alert["alert"] for alert in ALERTS}


def test_the_series_of_the_tests_are_series_of_weir() -> None:
    for name in TESTS:
        for test in yaml.safe_load((RULES.parent / name).read_text())["tests"]:
            for series in test["input_series"]:
                ((metric, labels),) = metrics_of(series["series"]).items()
                # Written as they are scraped: with all labels of the table.
                assert labels - SCRAPED == (set() if metric == "up" else TABLE[metric]), series


def test_every_alert_is_explained_to_whoever_is_woken() -> None:
    explained = re.findall(r"^\| `(Weir\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.M)
    assert explained == [alert["alert"] for alert in ALERTS]


@needs_promtool
@pytest.mark.parametrize("name", TESTS)
def test_alerts_fire_when_they_should_and_only_then(name: str) -> None:
    found = promtool("test", "rules", name, folder=RULES.parent)
    assert found.returncode == 0, found.stdout + found.stderr


@needs_promtool
def test_promtool_would_notice_an_alert_that_never_fires(tmp_path: Path) -> None:
    for name in TESTS:
        shutil.copy(RULES.parent / name, tmp_path)
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = "vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    found = promtool("test", "rules", *TESTS, folder=tmp_path)
    assert found.returncode == 1
    assert set(re.findall(r"alertname: (\w+), time", found.stdout + found.stderr)) == {a["alert"] for a in ALERTS}


@needs_promtool
def test_prometheus_takes_its_configuration() -> None:
    found = promtool("check", "config", "prometheus.yml", folder=RULES.parent)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{len(ALERTS)} rules found" in found.stdout
