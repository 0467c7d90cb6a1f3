"""The codec that a source or labels are declared with."""

from __future__ import annotations

from monitors.metrics import Metrics
from streams.errors import UsageError
from streams.event import Event
from streams.schemas.codec import Codec
from streams.schemas.registry import SchemaRegistry
from streams.settings import Settings


def declared_codec(what: str, codec: str, event: type[Event], settings: Settings, metrics: Metrics) -> Codec | None:
    """What decodes values to `event`; None where they are plain JSON. what: whose codec it is, for messages.

    Raises UsageError for a codec without its extra, or without a registry.
    """
    if codec == "json":
        return None
    registry = None if codec == "json-schema" else _registry(what, codec, settings)
    if codec == "avro":
        _needs_avro(what)
    return Codec(codec, event, registry, metrics)


def _registry(what: str, codec: str, settings: Settings) -> SchemaRegistry:
    if not settings.schema_registry:
        raise UsageError(f"{what} is codec={codec!r}: set WEIR_SCHEMA_REGISTRY to the registry's URL")
    password = settings.schema_registry_password
    return SchemaRegistry(
        settings.schema_registry.split(","),
        settings.schema_registry_username,
        password.get_secret_value() if password else None,
        settings.schema_registry_ca,
    )


def _needs_avro(what: str) -> None:
    try:
        import streams.schemas.avro  # noqa: F401
    except ImportError as error:
        mend = f"pip install 'weir[schemas]' ({error})"
        raise UsageError(f"{what} is codec='avro', which needs: {mend}") from error
