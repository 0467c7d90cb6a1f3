"""The records in docs/loop.md are ones that Weir reads, and belong together; its commands and links exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from models import rollout
from monitors import block, loop
from streams.cli import app

DOCS = Path(__file__).parents[2] / "docs"
DOC = (DOCS / "loop.md").read_text()
RECORDS = dict(re.findall(r"<!-- record: (\w+) -->\n```json\n(.*?)```", DOC, re.DOTALL))


def record(name: str) -> bytes:
    found: bytes = RECORDS[name].encode()
    return found


def test_every_record_is_read_and_says_nothing_that_is_unknown() -> None:
    read: dict[str, Any] = {
        "block": block.to_json(block.from_json(record("block"))),
        "drift": loop.to_json(loop.drift_from_json(record("drift"))),
        "retrain": loop.to_json(loop.retrain_from_json(record("retrain"))),
        "deployment": rollout.to_json(rollout.from_json(record("deployment"))),
    }
    assert {*read, "alert"} == set(RECORDS)
    for name, written in read.items():
        assert json.loads(written) == json.loads(record(name)), name


def test_the_records_are_of_one_chain() -> None:
    shown, drift = block.from_json(record("block")), loop.drift_from_json(record("drift"))
    event, deployment = loop.retrain_from_json(record("retrain")), rollout.from_json(record("deployment"))
    alert = json.loads(record("alert"))
    assert event.id == loop.event_id("retrain", event.pipeline, event.reason, drift.id)
    assert event.drifts == (drift.id,)
    assert drift.last + 1 == shown.number
    assert deployment.evidence is not None
    assert deployment.evidence == alert["evidence"]
    assert deployment.evidence["block"] == shown.number
    assert deployment.evidence["difference"] == round(shown.paired[0].difference / shown.paired[0].n, 6)
    assert (alert["deployment"], alert["retrain"], alert["time"]) == (deployment.id, event.id, shown.end)


@pytest.mark.parametrize("line", re.findall(r"(?:^|`)weir ([a-z][^`\n#]*)", DOC, re.MULTILINE))
def test_a_command_exists(line: str) -> None:
    command, words = typer.main.get_command(app), line.split()
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_what_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", DOC)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
