"""Settings: read from the environment and `.env` (prefix WEIR_), here and nowhere else."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.errors import UsageError, did_you_mean

PREFIX = "WEIR_"
MASK = "********"
Guarantee = Literal["at_least_once", "exactly_once"]


class Settings(BaseSettings):
    """How a process runs. Immutable; `load_settings` makes it and turns what is wrong into one line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        validate_default=True,
    )

    broker: str = Field("embedded", description="embedded, or host:port,… of Kafka brokers")
    redis: str = Field(
        "embedded", repr=False, description="embedded, or a redis:// or rediss:// URL; of a cluster, any of its nodes"
    )
    data_dir: Path = Field(Path(".weir"), description="registry, archive, compiled code, embedded state")
    registry: str = Field("", repr=False, description="MLflow tracking URI; default: SQLite under DATA_DIR")
    schema_registry: str = Field("", repr=False, description="URL,… of the Schema Registry, for sources with a codec")
    schema_registry_username: str | None = Field(None, description="user of the Schema Registry (basic authentication)")
    schema_registry_password: SecretStr | None = Field(None, description="password of that user, or API secret")
    schema_registry_ca: Path | None = Field(None, description="CA certificates (PEM) of the Schema Registry")
    guarantee: Guarantee = Field(
        cast(Guarantee, ""),
        description="at_least_once or exactly_once; default: the latter, the former on the embedded broker",
    )
    commit_interval: int = Field(100, ge=10, le=60_000, description="ms between commits")
    checkpoint_interval: int = Field(1000, ge=10, le=600_000, description="ms between checkpoints of feature state")
    http: str = Field("127.0.0.1:8321", description="host:port of health and metrics; port 0 = any free one")
    cache_entities: int = Field(200_000, ge=1, description="rows of feature state that a worker keeps per entity kind")
    on_store_away: Literal["hold", "local"] = Field(
        "hold", description="hold partitions while Redis is away, or go on from local state and mark the predictions"
    )
    batch_records: int = Field(4096, ge=1, le=100_000, description="most records in a poll")
    onnx_threads: int = Field(1, ge=1, le=256, description="threads of one inference")
    onnx_providers: str = Field(
        "", description="ONNX Runtime's providers in order of preference, such as CUDA,CPU; default: CUDA if it has it"
    )
    replication: int = Field(1, ge=1, le=32, description="replication factor of topics that weir creates")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe log written")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="json or console; auto = by terminal")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how brokers are spoken to"
    )
    security_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="with a SASL protocol"
    )
    security_username: str | None = Field(None, description="SASL user")
    security_password: SecretStr | None = Field(None, description="SASL password")
    security_ca: Path | None = Field(None, description="CA certificates (PEM)")
    security_cert: Path | None = Field(None, description="client certificate (PEM)")
    security_key: Path | None = Field(None, description="client key (PEM)")

    @property
    def embedded_broker(self) -> bool:
        return self.broker == "embedded"

    @property
    def embedded_redis(self) -> bool:
        return self.redis == "embedded"

    @property
    def http_address(self) -> tuple[str, int]:
        """(host, port) of `http`."""
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)

    def kafka_security(self) -> dict[str, str]:
        """librdkafka's configuration for SECURITY_*; empty for a plain connection."""
        password = self.security_password
        config = {
            "security.protocol": self.security_protocol if self.security_protocol != "PLAINTEXT" else None,
            "sasl.mechanism": self.security_sasl_mechanism,
            "sasl.username": self.security_username,
            "sasl.password": password.get_secret_value() if password else None,
            "ssl.ca.location": str(self.security_ca) if self.security_ca else None,
            "ssl.certificate.location": str(self.security_cert) if self.security_cert else None,
            "ssl.key.location": str(self.security_key) if self.security_key else None,
        }
        return {name: value for name, value in config.items() if value is not None}

    def shown(self) -> dict[str, Any]:
        """Every setting by its variable's name, without secrets: what may be printed."""
        values = self.model_dump(mode="json")
        values["redis"], values["registry"] = masked_url(self.redis), masked_url(self.registry)
        values["schema_registry"] = ",".join(map(masked_url, self.schema_registry.split(",")))
        values["schema_registry_password"] = MASK if self.schema_registry_password else None
        values["security_password"] = MASK if self.security_password else None
        return {PREFIX + name.upper(): values[name] for name in type(self).model_fields}

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("security_protocol", "security_sasl_mechanism", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("broker")
    @classmethod
    def _broker(cls, value: str) -> str:
        for address in value.split(","):
            if value != "embedded" and not re.fullmatch(r"\s*(\[[0-9A-Fa-f:]+\]|[^\s:/\[\]]+):\d{1,5}\s*", address):
                raise ValueError(f"{address!r} is not an address; write embedded or host:port,host:port")
        return value

    @field_validator("redis")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value != "embedded" and not re.match(r"(rediss?://.|unix://.)", value):
            raise ValueError("write embedded or a URL such as redis://localhost:6379/0")
        return value

    @field_validator("schema_registry")
    @classmethod
    def _schema_registry(cls, value: str) -> str:
        urls = [url.strip() for url in value.split(",")] if value else []
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("write a URL such as http://localhost:8081, or several with commas")
            if parts.username is not None:
                raise ValueError(f"give user and password as {PREFIX}SCHEMA_REGISTRY_USERNAME and _PASSWORD")
        return ",".join(urls)

    @field_validator("http")
    @classmethod
    def _http(cls, value: str) -> str:
        found = re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[^\s:/]+):(\d{1,5})", value)
        if not found or int(found[2]) > 65535:
            raise ValueError("write host:port, for example 127.0.0.1:8321; port 0 = any free one")
        return value

    @field_validator("guarantee", mode="before")
    @classmethod
    def _guarantee(cls, value: object, info: ValidationInfo) -> object:
        return value or ("at_least_once" if info.data.get("broker", "embedded") == "embedded" else "exactly_once")

    @field_validator("registry", mode="before")
    @classmethod
    def _registry(cls, value: object, info: ValidationInfo) -> object:
        return value or f"sqlite:///{info.data.get('data_dir', '.weir')}/registry.db"

    @model_validator(mode="after")
    def _together(self) -> Settings:
        _check_guarantee(self)
        if self.checkpoint_interval % self.commit_interval:
            raise ValueError(
                f"{PREFIX}CHECKPOINT_INTERVAL ({self.checkpoint_interval}) must be a multiple of "
                f"{PREFIX}COMMIT_INTERVAL ({self.commit_interval})"
            )
        _check_security(self)
        _check_registry(self)
        return self


def _check_guarantee(settings: Settings) -> None:
    """The one place that knows which guarantees are built."""
    if settings.guarantee == "at_least_once":
        return
    if settings.embedded_broker:
        raise ValueError(
            f"{PREFIX}GUARANTEE=exactly_once needs a real broker: the embedded one has no transactions; "
            f"set {PREFIX}BROKER=host:port or {PREFIX}GUARANTEE=at_least_once"
        )


def _check_security(settings: Settings) -> None:
    protocol, sasl = settings.security_protocol, settings.security_protocol.startswith("SASL")
    if sasl:
        for name in ("sasl_mechanism", "username", "password"):
            if getattr(settings, f"security_{name}") is None:
                raise ValueError(f"{PREFIX}SECURITY_PROTOCOL={protocol} needs {PREFIX}SECURITY_{name.upper()}")
    elif settings.security_sasl_mechanism or settings.security_username or settings.security_password:
        raise ValueError(
            f"{PREFIX}SECURITY_SASL_MECHANISM, _USERNAME and _PASSWORD need "
            f"{PREFIX}SECURITY_PROTOCOL=SASL_SSL (or SASL_PLAINTEXT), not {protocol}"
        )
    for name in ("ca", "cert", "key"):
        path: Path | None = getattr(settings, f"security_{name}")
        if path is not None and not protocol.endswith("SSL"):
            raise ValueError(f"{PREFIX}SECURITY_{name.upper()} needs {PREFIX}SECURITY_PROTOCOL=SSL or SASL_SSL")
        if path is not None and not path.is_file():
            raise ValueError(f"{PREFIX}SECURITY_{name.upper()}: there is no file {path}")


def _check_registry(settings: Settings) -> None:
    name = f"{PREFIX}SCHEMA_REGISTRY"
    user, password, ca = (getattr(settings, f"schema_registry_{part}") for part in ("username", "password", "ca"))
    if (user or password or ca) and not settings.schema_registry:
        raise ValueError(f"{name}_USERNAME, _PASSWORD and _CA need {name}")
    if (user is None) != (password is None):
        raise ValueError(f"{name}_USERNAME and {name}_PASSWORD go together")
    if ca is not None and not ca.is_file():
        raise ValueError(f"{name}_CA: there is no file {ca}")


def load_settings(**overrides: Any) -> Settings:
    """Settings of the environment; `overrides` by field name win. UsageError: one line with the variable."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise UsageError("; ".join(_line(dict(found)) for found in error.errors())) from None


def unknown_variables() -> dict[str, str]:
    """WEIR_ variables of the environment that are no setting, with the one that may have been meant."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    found = (name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    return {name: did_you_mean(name.upper(), known).removeprefix("; ") for name in sorted(found)}


def masked_url(url: str) -> str:
    """`url` with its password, if any, replaced."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{MASK}@{host}"))


def _line(error: dict[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    variable = PREFIX + str(error["loc"][0]).upper()
    secret = variable.removeprefix(PREFIX) in ("SECURITY_PASSWORD", "SCHEMA_REGISTRY", "REDIS", "REGISTRY")
    return f"{variable}: {message}" if secret else f"{variable}={error['input']!s}: {message}"


def traces_wanted() -> bool:
    """Whether OpenTelemetry's own variables ask for an export of traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)
