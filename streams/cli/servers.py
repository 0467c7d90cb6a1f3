"""Where the servers are that a report or a deployment speaks to: as set, or the embedded pair that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.errors import WeirError

if TYPE_CHECKING:
    from streams.loop_reader import LoopReader
    from streams.pipeline import Pipeline
    from streams.settings import Settings


def read_loop(pipeline: Pipeline, settings: Settings) -> LoopReader:
    """A reader of the loop's topics; to be closed. WeirError where the embedded broker does not run."""
    from streams.loop_reader import LoopReader

    broker = find_broker(settings)
    if broker is None:
        raise not_running(settings, "broker")
    return LoopReader(pipeline, settings, broker)


def find_broker(settings: Settings) -> str | None:
    """host:port,… of the broker; None where it is the embedded one and nothing runs."""
    if not settings.embedded_broker:
        return settings.broker
    from streams.embedded import find_embedded

    found = find_embedded(settings.data_dir)
    return found.broker if found else None


def find_redis(settings: Settings) -> str | None:
    """The URL of Redis; None where it is the embedded one and nothing runs."""
    if not settings.embedded_redis:
        return settings.redis
    from streams.embedded import find_embedded

    found = find_embedded(settings.data_dir)
    return found.redis_url if found else None


def not_running(settings: Settings, what: str) -> WeirError:
    return WeirError(
        f"the embedded {what} of {settings.data_dir} does not run: start the pipeline (weir run PIPELINE), "
        f"or set WEIR_{what.upper()} to a real one"
    )
