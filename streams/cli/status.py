"""`weir status`: what runs, which versions serve, what the loop did last, and who is behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streams.cli.output import JsonOption, PipelineArgument, emit, start, table, utc
from streams.cli.retrain import described, outcome_text

if TYPE_CHECKING:
    from monitors.block import Block
    from streams.loop_reader import Deployed, LoopReader
    from streams.pipeline import Pipeline
    from streams.settings import Settings

ROLES = ("worker", "monitor", "trainer")


def status(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """What runs, which versions serve and since when, the last drift and retraining, lag and labels."""
    from streams.cli.servers import read_loop
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    with read_loop(loaded, settings) as reader:
        report = collect(loaded, settings, reader)
    emit(report, as_json=as_json, text=None if as_json else _text(report))


def collect(pipeline: Pipeline, settings: Settings, reader: LoopReader) -> dict[str, Any]:
    """The whole report, of plain values. Times in ms since 1970."""
    import msgspec

    drifts, retrains, alerts = reader.drifts(), reader.retrains(), reader.alerts()
    return {
        "pipeline": pipeline.name,
        "model": pipeline.model,
        "roles": _roles(pipeline, settings),
        "deployment": deployment_of(reader.deployments()),
        "drift": msgspec.to_builtins(drifts[-1]) if drifts else None,
        "drifts": len(drifts),
        "retrain": described(retrains[-1], alerts) if retrains else None,
        "retrains": len(retrains),
        "alert": alerts[-1] if alerts else None,
        "lag": {role: _lag(pipeline, reader, role) for role in ROLES},
        "labels": labels_of(reader.newest_block()),
    }


def deployment_of(history: list[Deployed]) -> dict[str, Any] | None:
    """The deployment in force: each version with its place, and since when it has had it, as far back as is known."""
    if not history:
        return None
    now = history[-1].deployment
    named = {now.candidate: "candidate", now.previous: "previous", now.first: "first"}
    places = [("champion", now.champion)] if now.champion else []
    places += [("canary", now.canary.version)] if now.canary else []
    places += [("shadow", version) for version in now.shadows]
    versions = [
        {
            "version": version.version,
            "place": place,
            "as": named.get(version.version) if place == "shadow" else None,
            "since": _since(history, place, version.version),
        }
        for place, version in places
    ]
    share = now.canary.share if now.canary else None
    since = history[-1].time_ms
    return {"id": now.id, "since": since, "cause": now.cause, "canary_share": share, "versions": versions}


def labels_of(block: Block | None) -> dict[str, Any] | None:
    """What the latest block says of labels. coverage: of those that came or whose time ran out; None of nothing."""
    if block is None:
        return None
    found = block.labels
    due = found.n + found.missing
    return {
        "block": block.number,
        "end": block.end,
        "predictions": block.predictions,
        "unscored": block.unscored,
        "labels": found.n,
        "missing": found.missing,
        "coverage": found.n / due if due else None,
        "delay_s": found.delay_s if found.n else None,
    }


def _since(history: list[Deployed], place: str, version: str) -> int:
    """When the version got its place, without a break since."""
    since = history[-1].time_ms
    for time_ms, deployment in reversed(history):
        if place == "champion":
            has = deployment.champion is not None and deployment.champion.version == version
        elif place == "canary":
            has = deployment.canary is not None and deployment.canary.version.version == version
        else:
            has = deployment.shadow(version) is not None
        if not has:
            break
        since = time_ms
    return since


def _roles(pipeline: Pipeline, settings: Settings) -> dict[str, Any]:
    """What answers at the roles' HTTP endpoints of this machine, as `weir run` places them; None where nothing does."""
    from streams.watch import ask

    host, port = settings.http_address
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104  # what listens everywhere is here too
    found: dict[str, Any] = dict.fromkeys(ROLES)
    for place, role in enumerate(ROLES if port else ()):
        url = f"http://{f'[{host}]' if ':' in host else host}:{port + place}"
        answer = ask(f"{url}/status")
        if answer is None or answer.get("pipeline") != pipeline.name:
            continue
        ready = ask(f"{url}/health/ready") or {}
        found[answer.get("role", role)] = {
            "url": url,
            "version": answer.get("weir"),
            "pid": answer.get("pid"),
            "ready": bool(ready.get("ready")),
            "reasons": ready.get("reasons") or {},
        }
    return found


def _lag(pipeline: Pipeline, reader: LoopReader, role: str) -> dict[str, Any]:
    """Records that the role's group has yet to read, by topic; total None where it has never read anything."""
    topics = {
        "worker": [source.topic for source in pipeline.sources],
        "monitor": [pipeline.topics.predictions, *([pipeline.labels.topic] if pipeline.labels else [])],
        "trainer": [pipeline.topics.retrain],
    }[role]
    behind = reader.lag(f"{pipeline.name}-{role}", topics)
    known = [records for records in behind.values() if records is not None]
    return {"records": sum(known) if known else None, "topics": behind}


def _text(report: dict[str, Any]) -> str:
    labels, retrain, drift, alert = (report[name] for name in ("labels", "retrain", "drift", "alert"))
    lines = [
        ("drift", _none if drift is None else f"{drift['signal']} by {drift['detector']}, {utc(drift['time'])} UTC"
         f" ({drift['id']}; {report['drifts']} in all)"),
        ("retraining", _none if retrain is None else f"{retrain['reason']}, {utc(retrain['time'])} UTC"
         f" ({retrain['id']}; {report['retrains']} in all): {outcome_text(retrain['outcome'])}"),
        ("alert", _none if alert is None else _alert(alert)),
        ("labels", "no block yet" if labels is None else _labels(labels)),
    ]  # fmt: skip
    parts = [
        _served(report),
        table(("role", "here", "behind"), [_role(report, role) for role in ROLES]),
        table(("last", ""), lines),
    ]
    return "\n\n".join(parts)


_none = "none"


def _served(report: dict[str, Any]) -> str:
    deployment = report["deployment"]
    if deployment is None:
        return f"{report['pipeline']}: no deployment; predictions are unscored"
    head = f"{report['pipeline']}: deployment {deployment['id']} since {utc(deployment['since'])} UTC"
    if deployment["cause"]:
        head += f" ({deployment['cause']})"
    rows = [
        (found["version"], found["place"] + (f" ({found['as']})" if found["as"] else ""), utc(found["since"]))
        for found in deployment["versions"]
    ]
    return head + ("\n\n" + table(("version", "serves as", "since (UTC)"), rows) if rows else "; no version")


def _role(report: dict[str, Any], role: str) -> tuple[str, str, str]:
    found, behind = report["roles"][role], report["lag"][role]["records"]
    here = "not seen on this machine"
    if found is not None:
        reasons = "; ".join(f"{name}: {why}" for name, why in found["reasons"].items())
        ready = "ready" if found["ready"] else f"not ready: {reasons}"
        here = " ".join(filter(None, (found["url"], found["version"], ready)))
    return role, here, "has read nothing yet" if behind is None else f"{behind:,} records"


def _alert(alert: dict[str, Any]) -> str:
    rest = ", ".join(
        f"{name} {value}" for name, value in alert.items() if name not in ("kind", "time", "pipeline") and value
    )
    return f"{alert.get('kind')}, {utc(alert.get('time'))} UTC" + (f": {rest}" if rest else "")


def _labels(labels: dict[str, Any]) -> str:
    head = f"block to {utc(labels['end'])} UTC: {labels['labels']:,} labels"
    if labels["coverage"] is None:
        return head
    return f"{head}, {labels['coverage']:.1%} of those that were due, {labels['delay_s'] or 0:,.0f} s after the event"
