"""While the registry is away decoding waits, the event loop does not; wrong use is refused before anything starts."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from monitors.metrics import Metrics
from streams import Event, Pipeline, Source, UsageError
from streams.schemas.awaited import AwaitedSchemas
from streams.settings import Settings, load_settings
from tests.schema_registry import SchemaRegistryServer
from tests.streams.records import Record, batch


class Payment(Event):
    user: str
    ts: int


def pipeline(codec: str) -> Pipeline:
    source = Source("t", Payment, key="user", time="ts", codec=codec)  # type: ignore[arg-type]
    return Pipeline("p", score=source, features=[source.by("user").count("1h")], model="m")


def settings(url: str = "") -> Settings:
    return Settings(_env_file=None, schema_registry=url)  # type: ignore[call-arg]


async def test_decoding_waits_until_the_registry_answers_and_says_so_meanwhile() -> None:
    with SchemaRegistryServer() as server:
        fields = [{"name": "user", "type": "string"}, {"name": "ts", "type": "long"}]
        schema = json.dumps({"type": "record", "name": "Payment", "fields": fields})
        with SchemaRegistryClient({"url": server.url}) as client:
            context = SerializationContext("t", MessageField.VALUE)
            value = AvroSerializer(client, schema)({"user": "u", "ts": 1}, context)
        metrics = Metrics()
        schemas = AwaitedSchemas.of(pipeline("avro"), settings(server.url), metrics)
        server.stop()
        waiting = asyncio.ensure_future(schemas.ready([batch([Record(value)])]))
        until = time.monotonic() + 20
        while not schemas.waiting and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert "does not answer" in schemas.waiting
        assert not waiting.done()
        server.start()
        await asyncio.wait_for(waiting, 20)
        assert schemas.waiting == ""
        assert metrics.value("weir_schema_fetches_total", result="ok") == 1
        codec = schemas.codecs[0]
        assert codec is not None
        assert codec.event(value) == Payment("u", 1)
        await schemas.ready([batch([Record(value), Record(b"no header"), Record(None)])])


async def test_plain_json_asks_nobody() -> None:
    schemas = AwaitedSchemas.of(pipeline("json"), settings(), Metrics())
    assert schemas.codecs == [None]
    await schemas.ready([batch([Record(b"{}")])])
    (json_schema,) = AwaitedSchemas.of(pipeline("json-schema"), settings(), Metrics()).codecs
    assert json_schema is not None
    assert json_schema.unseen([b"\0\0\0\0\1{}"]) == []


@pytest.mark.parametrize("codec", ["avro", "protobuf"])
def test_a_codec_without_a_registry_is_wrong_use(codec: str) -> None:
    with pytest.raises(UsageError, match=f"source t is codec='{codec}': set WEIR_SCHEMA_REGISTRY"):
        AwaitedSchemas.of(pipeline(codec), settings(), Metrics())


def test_a_codec_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="source t: codec='thrift' is none of json, avro, protobuf, json-schema"):
        pipeline("thrift")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"schema_registry": "localhost:8081"}, "WEIR_SCHEMA_REGISTRY: write a URL"),
        ({"schema_registry": "http://u:secret@h:1"}, "give user and password as WEIR_SCHEMA_REGISTRY_USERNAME"),
        ({"schema_registry": "http://h:1", "schema_registry_username": "u"}, "_PASSWORD go together"),
        ({"schema_registry_username": "u", "schema_registry_password": "p"}, "need WEIR_SCHEMA_REGISTRY"),
        ({"schema_registry": "http://h:1", "schema_registry_ca": "/no/file"}, "there is no file /no/file"),
    ],
)
def test_a_registry_that_cannot_be_is_said_in_one_line_without_the_password(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(UsageError) as error:
        load_settings(**variables)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_the_registrys_password_is_never_shown() -> None:
    given = {"schema_registry_username": "u", "schema_registry_password": "hush"}
    found = Settings(_env_file=None, schema_registry="http://a:1,http://b:2", **given)  # type: ignore[call-arg, arg-type]
    assert "hush" not in str(found.shown())
    assert found.shown()["WEIR_SCHEMA_REGISTRY"] == "http://a:1,http://b:2"
