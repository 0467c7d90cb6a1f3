"""Settings come from the environment; what is wrong is one line that names the variable and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import UsageError
from streams.settings import Settings, load_settings, masked_url, unknown_variables


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("WEIR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_an_environment_everything_is_embedded() -> None:
    settings = load_settings()
    assert settings.embedded_broker
    assert settings.embedded_redis
    assert (settings.guarantee, settings.commit_interval, settings.checkpoint_interval) == (
        "at_least_once",
        100,
        1000,
    )
    assert settings.registry == "sqlite:///.weir/registry.db"
    assert settings.http_address == ("127.0.0.1", 8321)
    assert settings.kafka_security() == {}


def test_variables_and_a_dotenv_file_are_read_and_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WEIR_BROKER=kafka:9092\nWEIR_BATCH_RECORDS=100\nOTHER=1\n")
    monkeypatch.setenv("WEIR_BATCH_RECORDS", "200")
    settings = load_settings()
    assert (settings.broker, settings.batch_records) == ("kafka:9092", 200)


def test_the_registry_lies_in_the_data_directory_unless_it_is_set() -> None:
    assert load_settings(data_dir="/var/weir").registry == "sqlite:////var/weir/registry.db"
    assert load_settings(registry="http://mlflow:5000").registry == "http://mlflow:5000"


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_BROKER", "")
    assert load_settings().broker == "embedded"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().broker = "other:9092"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "BROKER",
            "kafka",
            "WEIR_BROKER=kafka: 'kafka' is not an address; write embedded or host:port,host:port",
        ),
        ("REDIS", "localhost:6379", "WEIR_REDIS: write embedded or a URL such as redis://localhost:6379/0"),
        (
            "HTTP",
            "8321",
            "WEIR_HTTP=8321: write host:port, for example 127.0.0.1:8321; port 0 = any free one",
        ),
        (
            "HTTP",
            "0.0.0.0:99999",
            "WEIR_HTTP=0.0.0.0:99999: write host:port, for example 127.0.0.1:8321; port 0 = any free one",
        ),
        ("GUARANTEE", "twice", "WEIR_GUARANTEE=twice: Input should be 'at_least_once' or 'exactly_once'"),
        (
            "GUARANTEE",
            "exactly_once",
            "WEIR_GUARANTEE=exactly_once needs a real broker: the embedded one has no "
            "transactions; set WEIR_BROKER=host:port or WEIR_GUARANTEE=at_least_once",
        ),
        (
            "COMMIT_INTERVAL",
            "soon",
            "WEIR_COMMIT_INTERVAL=soon: Input should be a valid integer, unable to parse string as an integer",
        ),
        ("COMMIT_INTERVAL", "0", "WEIR_COMMIT_INTERVAL=0: Input should be greater than or equal to 10"),
        (
            "COMMIT_INTERVAL",
            "300",
            "WEIR_CHECKPOINT_INTERVAL (1000) must be a multiple of WEIR_COMMIT_INTERVAL (300)",
        ),
        ("LOG_LEVEL", "loud", "WEIR_LOG_LEVEL=loud: Input should be 'debug', 'info', 'warning' or 'error'"),
        (
            "SECURITY_PROTOCOL",
            "SASL_SSL",
            "WEIR_SECURITY_PROTOCOL=SASL_SSL needs WEIR_SECURITY_SASL_MECHANISM",
        ),
        (
            "SECURITY_USERNAME",
            "me",
            "WEIR_SECURITY_SASL_MECHANISM, _USERNAME and _PASSWORD need "
            "WEIR_SECURITY_PROTOCOL=SASL_SSL (or SASL_PLAINTEXT), not PLAINTEXT",
        ),
        ("SECURITY_CA", "ca.pem", "WEIR_SECURITY_CA needs WEIR_SECURITY_PROTOCOL=SSL or SASL_SSL"),
    ],
)
def test_a_wrong_setting_is_one_line(variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"WEIR_{variable}", value)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert str(caught.value) == expected


def test_a_real_broker_means_exactly_once_and_the_embedded_one_at_least_once() -> None:
    assert load_settings(broker="kafka:9092").guarantee == "exactly_once"
    assert load_settings(broker="kafka:9092", guarantee="at_least_once").guarantee == "at_least_once"
    assert load_settings(broker="embedded").guarantee == "at_least_once"


def test_two_wrong_settings_are_said_together() -> None:
    with pytest.raises(UsageError, match=r"^WEIR_HTTP=x: .*; WEIR_ONNX_THREADS=0: "):
        load_settings(http="x", onnx_threads=0)


def test_security_becomes_librdkafkas_configuration(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    settings = load_settings(
        broker="kafka:9093",
        security_protocol="sasl_ssl",
        security_sasl_mechanism="scram-sha-512",
        security_username="weir",
        security_password="secret",
        security_ca=str(ca),
    )
    assert settings.kafka_security() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "weir",
        "sasl.password": "secret",
        "ssl.ca.location": str(ca),
    }


def test_a_certificate_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match=r"^WEIR_SECURITY_CA: there is no file ca\.pem$"):
        load_settings(security_protocol="SSL", security_ca="ca.pem")


def test_secrets_are_never_shown() -> None:
    settings = load_settings(
        redis="rediss://weir:hunter2@redis:6379/0",
        registry="http://me:hunter2@mlflow:5000",
        security_protocol="SASL_SSL",
        security_sasl_mechanism="PLAIN",
        security_username="weir",
        security_password="hunter2",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.shown())
    assert settings.shown()["WEIR_REDIS"] == "rediss://weir:********@redis:6379/0"
    assert settings.shown()["WEIR_SECURITY_PASSWORD"] == "********"


def test_a_wrong_secret_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(redis="user:hunter2@redis")
    assert "hunter2" not in str(caught.value)


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert masked_url("redis://redis:6379/0") == "redis://redis:6379/0"
    assert masked_url("redis://:pw@redis:6379") == "redis://:********@redis:6379"


def test_variables_that_are_no_setting_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_COMMIT_INTERVALL", "100")
    monkeypatch.setenv("WEIR_XYZZY", "1")
    assert unknown_variables() == {
        "WEIR_COMMIT_INTERVALL": "did you mean 'WEIR_COMMIT_INTERVAL'?",
        "WEIR_XYZZY": "",
    }


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
