"""`weir retrain`: the events that ask for a new model, and asking for one by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import JsonOption, PipelineArgument, emit, progress, start, table, utc

if TYPE_CHECKING:
    from monitors.loop import RetrainEvent

app = typer.Typer(help="Retrain events of a pipeline: list them, ask for a new model.", no_args_is_help=True)


@app.command("list")
def list_events(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """Retrain events, oldest first, and what became of each."""
    from streams.cli.servers import read_loop
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    with read_loop(loaded, settings) as reader:
        events, alerts = reader.retrains(), reader.alerts()
    listed = [described(event, alerts) for event in events]
    text = f"{loaded.name} has no retrain event"
    if listed:
        rows = [
            (
                found["id"],
                utc(found["time"]),
                found["reason"],
                len(found["drifts"]) or "",
                f"{found['labels']:,}",
                f"{found['coverage']:.1%}",
                outcome_text(found["outcome"]),
            )
            for found in listed
        ]
        text = table(("id", "time (UTC)", "reason", "drifts", "labels", "coverage", "outcome"), rows)
    emit({"pipeline": loaded.name, "events": listed}, as_json=as_json, text=text)


@app.command("trigger")
def trigger(
    pipeline: PipelineArgument,
    reason_text: Annotated[
        str | None, typer.Option(help="Why, in words: kept with the event.", show_default=False)
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(help="The event's id: asking twice with one id is asking once.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a new model, trained on all labels up to the end of the latest block."""
    import time

    import msgspec

    from streams import retrain_request
    from streams.cli.servers import read_loop
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    retrain_request.check(loaded, id)
    with read_loop(loaded, settings) as reader:
        progress(f"reading what {loaded.topics.blocks} says")
        event, asked_before = retrain_request.compose(
            loaded, reader.blocks(), reader.retrains(), time.time_ns() // 1_000_000, id=id, text=reason_text
        )
        if not asked_before:
            retrain_request.publish(loaded, settings, reader.broker, event)
    report = {"pipeline": loaded.name, "published": not asked_before, "event": msgspec.to_builtins(event)}
    labels = f"{event.labels:,} labels up to {utc(event.range.to)} UTC, {event.new_labels:,} of them new"
    said = f"retrain event {event.id}: {labels}"
    if asked_before:
        said = f"retrain event {event.id} was there already ({event.reason}): nothing is published"
    emit(report, as_json=as_json, text=said)


def described(event: RetrainEvent, alerts: list[dict[str, Any]]) -> dict[str, Any]:
    """The event, and the last thing that was told of it: {"kind", "version", "reasons", "time"}, or None."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(event)
    told = [alert for alert in alerts if alert.get("retrain") == event.id]
    outcome = {name: told[-1].get(name) for name in ("kind", "version", "reasons", "time")} if told else None
    return {**found, "outcome": outcome}


def outcome_text(outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return "open"
    version = f" version {outcome['version']}" if outcome["version"] else ""
    reasons = outcome["reasons"] or ()
    return f"{outcome['kind']}{version}" + (f": {'; '.join(map(str, reasons))}" if reasons else "")
