"""`weir config`: what the environment says."""

from __future__ import annotations

import typer

from streams.cli.output import JsonOption, emit, progress, start, table

app = typer.Typer(help="Settings of this environment.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("show")
def show(as_json: JsonOption = False) -> None:
    """Every setting with its value; secrets are masked."""
    from streams.settings import PREFIX, Settings, unknown_variables

    settings = start(report=True)
    shown = settings.shown()
    for name, meant in unknown_variables().items():
        progress(f"{name} is not a setting{'; ' + meant if meant else ''}")
    fields = Settings.model_fields
    rows = [
        (name, "" if value is None else value, fields[name.removeprefix(PREFIX).lower()].description or "")
        for name, value in shown.items()
    ]
    emit(shown, as_json=as_json, text=None if as_json else table(("variable", "value", "meaning"), rows))
