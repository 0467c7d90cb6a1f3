"""The command `weir`. A module here is a group of commands; what they run is imported when they run."""

from __future__ import annotations

import typer

from streams.cli import config, drift, features, models, retrain, roles
from streams.cli.bench import bench
from streams.cli.demo import demo
from streams.cli.doctor import doctor
from streams.cli.output import WeirGroup
from streams.cli.status import status
from streams.cli.train import train

app = typer.Typer(
    name="weir",
    help="Streaming inference on Kafka: online features, ONNX models, training from what was served.",
    cls=WeirGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("run")(roles.run)
app.command("worker")(roles.worker)
app.command("monitor")(roles.monitor)
app.command("trainer")(roles.trainer)
app.command("status")(status)
app.command("train")(train)
app.add_typer(models.app, name="models")
app.add_typer(drift.app, name="drift")
app.add_typer(retrain.app, name="retrain")
app.add_typer(features.app, name="features")
app.command("bench")(bench)
app.command("doctor")(doctor)
app.add_typer(config.app, name="config")


def main() -> None:
    """Entry point of the command `weir`."""
    app()
