"""The catalogue as a page: HTML that needs nothing else, or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

_PAGE = Path(__file__).with_name("catalogue.html")
_DETAILS = ("source", "entity", "window", "type", "encoding", "missing", "freshness", "rules", "examples", "models")


def render(found: Mapping[str, Any], suffix: str) -> str:
    """The page of `streams.catalogue.catalogue`, as ".html" or ".md"."""
    return _html(found) if suffix == ".html" else _markdown(found)


def details(feature: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said of a feature beside its meaning, without what there is nothing to say of."""
    return [(name, text) for name in _DETAILS if (text := shown(feature.get(name)))]


def _markdown(found: Mapping[str, Any]) -> str:
    lines = [f"# Features of {found['pipeline']}", "", f"{_summary(found)}", "", "## Sources", ""]
    lines += [f"- {_source(source)}" for source in found["sources"]]
    lines += ["", "## Models", "", *(f"- {line}" for line in _models(found)), "", "## Features"]
    for place, feature in enumerate(found["features"], start=1):
        lines += ["", f"### {place}. `{feature['name']}`", "", f"{_sentence(feature['meaning'])}", ""]
        lines += ["| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(text)} |" for name, text in details(feature)]
    return "\n".join(lines) + "\n"


def _html(found: Mapping[str, Any]) -> str:
    features = "\n".join(_card(place, feature) for place, feature in enumerate(found["features"], start=1))
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Features of {found['pipeline']}"),
        summary=escape(_summary(found)),
        sources=_items(map(_source, found["sources"])),
        models=_items(_models(found)),
        contents="".join(f'<a href="#{escape(f["name"])}">{escape(f["name"])}</a> ' for f in found["features"]),
        features=features,
    )


def _card(place: int, feature: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in details(feature))
    name, said = escape(feature["name"]), escape(_sentence(feature["meaning"]))
    head = f"<h3><i>{place}</i> {name}</h3><p>{said}</p>"
    return f'<section class="card" id="{name}">{head}<table>{rows}</table></section>'


def _summary(found: Mapping[str, Any]) -> str:
    n = len(found["features"])
    said = f"{n} features, in the order of the inputs of model {found['model']}; spec {found['spec_hash']}."
    online = found["online_examples"]
    return f"{said} Example values of the online store: {online}." if online else said


def _source(source: Mapping[str, Any]) -> str:
    role = "scored" if source["scored"] else "learned from"
    said = f"{source['topic']} ({role}): {source['event']}, {source['codec']}"
    said += f", keyed by {source['key']}, event time in {source['time']}"
    return said + (f"; rules: {'; '.join(source['rules'])}" if source["rules"] else "")


def _models(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for model in found["models"]:
        places = f" ({', '.join(model['places'])})" if model["places"] else ""
        lines.append(f"version {model['version']}{places}, of {_utc(model['created_ms'])}")
    if not lines:
        lines = ["no registered version was trained on these features"]
    if found["other_versions"]:
        lines.append(f"{found['other_versions']} of {found['model']} were trained on other features")
    return lines


def _items(lines: Any) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def shown(value: Any) -> str:
    """A value for people: lists with commas, numbers short, nothing for None."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(shown(item) or '""' for item in value)
    if isinstance(value, float):
        return f"{value:.7g}"
    return "" if value is None else str(value)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _utc(time_ms: float) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
