"""Values that Confluent's own serializers wrote, and a registry over HTTP: each codec gives the same events."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from monitors.metrics import Metrics
from streams import Event, Rule, Source
from streams.contract import Contract
from streams.decode import Decoder
from streams.decoded import Decoded
from streams.schemas.codec import UNKNOWN_S, Codec
from streams.schemas.registry import RegistryAway, SchemaRegistry
from tests.schema_registry import SchemaRegistryServer
from tests.streams.records import NOW, Record, batch

TOPIC = "payments"


class Payment(Event):
    payment_id: str
    user: str
    amount: float
    ts: int
    note: str | None = None
    items: int = 7


@pytest.fixture(scope="module")
def server() -> Iterator[SchemaRegistryServer]:
    with SchemaRegistryServer() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: SchemaRegistryServer) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": server.url}) as connected:
        yield connected


def codec_of(name: str, server: SchemaRegistryServer, metrics: Metrics | None = None, **options: Any) -> Codec:
    registry = None if name == "json-schema" else SchemaRegistry([server.url])
    return Codec(name, options.pop("event", Payment), registry, metrics or Metrics(), pause=lambda _: None, **options)


def decode(codec: Codec, values: list[Any], *rules: Rule, event: type[Event] = Payment) -> Decoded:
    """Through the decoder, as in a worker, with the schemas that are needed learned first."""
    source = Source(TOPIC, event, key="user", id="payment_id", time="ts", codec="avro", rules=rules)
    contract = Contract(source.conditions) if rules else None
    decoder = Decoder(source, 0, numbers={"amount", "items"}, texts={"note"}, codec=codec, contract=contract)
    codec.learn(codec.unseen(values))
    return decoder.decode(batch([Record(value) for value in values]))


CONTEXT = SerializationContext(TOPIC, MessageField.VALUE)
FIELDS: list[dict[str, Any]] = [
    {"name": "payment_id", "type": "string"},
    {"name": "user", "type": "string"},
    {"name": "amount", "type": "double"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
]
GOOD: dict[str, Any] = {"payment_id": "p", "user": "u", "amount": 2.5, "ts": NOW}


def avro(client: SchemaRegistryClient, fields: list[dict[str, Any]], *records: dict[str, Any]) -> list[bytes]:
    schema = {"type": "record", "name": "Payment", "namespace": "shop", "fields": fields}
    write = AvroSerializer(client, json.dumps(schema))
    return [write(record, CONTEXT) for record in records]


def with_type(name: str, kind: Any) -> list[dict[str, Any]]:
    return [{**field, "type": kind} if field["name"] == name else field for field in FIELDS]


def test_avro_records_become_events(server: SchemaRegistryServer, client: SchemaRegistryClient) -> None:
    fields = [*FIELDS, {"name": "note", "type": ["null", "string"]}, {"name": "items", "type": "int"}]
    values = avro(client, fields, *({**GOOD, "payment_id": f"p{i}", "note": None, "items": i} for i in range(3)))
    found = decode(codec_of("avro", server), values)
    assert not found.dead
    assert found.ids == ["p0", "p1", "p2"]
    assert found.times.tolist() == [NOW] * 3
    assert found.fields["items"].tolist() == [0, 1, 2]
    assert found.fields["note"] == [None] * 3


COMPATIBLE: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a field was added": ([{"name": "shop", "type": "string", "default": ""}, *FIELDS], {**GOOD, "shop": "s"}),
    "fields in another order": (FIELDS[::-1], GOOD),
    "a narrower number": (with_type("amount", "int"), {**GOOD, "amount": 2}),
    "null was allowed": (with_type("amount", ["null", "double"]), GOOD),
    "a field was renamed, with an alias": (
        [{"name": "value", "type": "double", "aliases": ["amount"]}, *FIELDS[:2], FIELDS[3]],
        {**{k: v for k, v in GOOD.items() if k != "amount"}, "value": 2.5},
    ),
    "bytes for a text": (with_type("payment_id", "bytes"), {**GOOD, "payment_id": b"p"}),
    "a decimal": (
        with_type("amount", {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}),
        {**GOOD, "amount": Decimal("2.50")},
    ),
    "time in microseconds": (
        with_type("ts", {"type": "long", "logicalType": "timestamp-micros"}),
        {**GOOD, "ts": NOW * 1000},
    ),
    "an enum for a text": (
        [*FIELDS, {"name": "note", "type": {"type": "enum", "name": "Note", "symbols": ["GIFT", "SALE"]}}],
        {**GOOD, "note": "SALE"},
    ),
    "a nested record beside": (
        [
            {"name": "where", "type": {"type": "record", "name": "Where", "fields": [{"name": "x", "type": "int"}]}},
            *FIELDS,
            {"name": "before", "type": ["null", "Where"], "default": None},
        ],
        {**GOOD, "where": {"x": 1}, "before": None},
    ),
}


@pytest.mark.parametrize("change", COMPATIBLE)
def test_a_compatible_change_of_an_avro_schema_goes_through_beside_what_was_before(
    change: str, server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    fields, record = COMPATIBLE[change]
    before, after = avro(client, FIELDS, GOOD), avro(client, fields, record)
    found = decode(codec_of("avro", server), [*before, *after, *before])
    assert not found.dead
    assert found.ids == ["p", "p", "p"]
    assert found.fields["amount"].tolist() == [2.5 if change != "a narrower number" or i != 1 else 2 for i in range(3)]
    assert found.fields["items"].tolist() == [7, 7, 7]
    assert found.fields["note"][1] == ("SALE" if change == "an enum for a text" else None)


INCOMPATIBLE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str]] = {
    "another type": (with_type("amount", "string"), {**GOOD, "amount": "2.5"}, "amount", "Expected `float`, got `str`"),
    "a null": (
        with_type("amount", ["null", "double"]),
        {**GOOD, "amount": None},
        "amount",
        "Expected `float`, got `null`",
    ),
    "a field was taken away": (
        [field for field in FIELDS if field["name"] != "amount"],
        GOOD,
        "amount",
        "missing required field `amount`",
    ),
    "renamed without an alias": (
        [{"name": "value", "type": "double"}, *FIELDS[:2], FIELDS[3]],
        {**GOOD, "value": 1.0},
        "amount",
        "missing required field `amount`",
    ),
    "NaN": (FIELDS, {**GOOD, "amount": math.nan}, "amount", "NaN is no number"),
    "a number beyond float32": (FIELDS, {**GOOD, "amount": math.inf}, "amount", "beyond float32"),
}


@pytest.mark.parametrize("change", INCOMPATIBLE)
def test_what_no_longer_fits_is_a_dead_letter_that_names_the_field_and_the_others_go_through(
    change: str, server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    fields, record, field, reason = INCOMPATIBLE[change]
    good, bad = avro(client, FIELDS, GOOD), avro(client, fields, record)
    found = decode(codec_of("avro", server), [*good, *bad, *good])
    assert found.offsets.tolist() == [0, 2]
    (letter,) = found.dead
    assert (letter.offset, letter.stage, letter.field) == (1, "decode", field)
    assert reason in letter.reason
    assert letter.value == bad[0]


def test_bytes_that_are_no_avro_record_are_dead_letters_with_their_reasons(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    (good,) = avro(client, FIELDS, GOOD)
    unknown = b"\0" + (99_999).to_bytes(4, "big") + good[5:]
    plain = json.dumps(GOOD).encode()
    values = [good, good[:-3], good + b"xx", unknown, plain, b"\0\0", b"", good]
    found = decode(codec_of("avro", server), values)
    assert found.offsets.tolist() == [0, 7]
    assert [(letter.offset, letter.code) for letter in found.dead] == [
        (1, "malformed"),
        (2, "malformed"),
        (3, "unknown_schema"),
        (4, "no_schema"),
        (5, "no_schema"),
        (6, "empty"),
    ]
    assert found.dead[1].reason == "2 bytes after the record"
    assert found.dead[2].reason == "the registry has no schema 99999"
    assert "begins with 7b" in found.dead[3].reason


def test_a_schema_that_refers_to_another_is_read_with_it(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    money = {"type": "enum", "name": "Kind", "namespace": "shop", "symbols": ["GIFT", "SALE"]}
    client.register_schema("kinds", Schema(json.dumps(money), "AVRO"))
    fields = [*FIELDS, {"name": "note", "type": "shop.Kind"}]
    schema = {"type": "record", "name": "Referring", "namespace": "shop", "fields": fields}
    referring = Schema(json.dumps(schema), "AVRO", [SchemaReference("shop.Kind", "kinds", 1)])
    (value,) = [AvroSerializer(client, referring)({**GOOD, "note": "GIFT"}, CONTEXT)]
    assert decode(codec_of("avro", server), [value]).fields["note"] == ["GIFT"]


def test_rules_hold_for_avro_as_for_json(server: SchemaRegistryServer, client: SchemaRegistryClient) -> None:
    values = avro(client, FIELDS, GOOD, {**GOOD, "amount": -1.0})
    found = decode(codec_of("avro", server), values, Rule("amount", ge=0, on_violation="dead_letter"))
    assert [(d.offset, d.stage, d.field) for d in found.dead] == [(1, "contract", "amount")]


# Protobuf: descriptors made here, as protoc would make them.

_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "int32": FieldDescriptorProto.TYPE_INT32,
}
WITHOUT = {name: value for name, value in GOOD.items() if name != "amount"}
PROTO = {"payment_id": "string", "user": "string", "amount": "double", "ts": "int64", "note": "optional string"}


def message_type(fields: dict[str, str], *, nested: bool = False) -> Any:
    """The class of a message `Payment` with these fields (`google.protobuf.…` and `Kind` are known too)."""
    made = DescriptorProto(name="Payment")
    for number, (name, kind) in enumerate(fields.items(), start=1):
        optional, plain = kind.startswith("optional "), kind.removeprefix("optional ")
        field = made.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        if plain in _TYPES:
            field.type = _TYPES[plain]
        else:
            field.type_name = f".{plain}" if plain.startswith("google") else f".shop.{plain}"
            field.type = FieldDescriptorProto.TYPE_ENUM if plain == "Kind" else FieldDescriptorProto.TYPE_MESSAGE
        if optional:
            field.proto3_optional, field.oneof_index = True, len(made.oneof_decl)
            made.oneof_decl.add(name=f"_{name}")
    file = FileDescriptorProto(name="payment.proto", package="shop", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    kind_enum = EnumDescriptorProto(name="Kind")
    kind_enum.value.add(name="NONE", number=0)
    kind_enum.value.add(name="SALE", number=3)
    file.enum_type.append(kind_enum)
    if nested:
        file.message_type.add(name="Other")
        file.message_type.add(name="Outer").nested_type.append(made)
    else:
        file.message_type.append(made)
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    name = "shop.Outer.Payment" if nested else "shop.Payment"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def protobuf(client: SchemaRegistryClient, kind: Any, *records: dict[str, Any]) -> list[bytes]:
    options = {"use.deprecated.format": False, "skip.known.types": True}
    write = ProtobufSerializer(kind, client, options)
    return [write(kind(**record), CONTEXT) for record in records]


def test_protobuf_messages_become_events_and_an_absent_optional_is_null(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    values = protobuf(client, message_type(PROTO), {**GOOD, "note": "x"}, {**GOOD, "note": ""}, GOOD)
    found = decode(codec_of("protobuf", server), values)
    assert not found.dead
    assert found.fields["note"] == ["x", "", None]
    assert found.fields["amount"].tolist() == [2.5] * 3
    assert found.times.tolist() == [NOW] * 3


def test_a_message_within_others_is_found_by_its_index(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    (value,) = protobuf(client, message_type(PROTO, nested=True), GOOD)
    assert value[5:8] == b"\x04\x02\x00"  # two indexes, 1 and 0, in zigzag
    assert decode(codec_of("protobuf", server), [value]).ids == ["p"]
    beyond = decode(codec_of("protobuf", server), [value[:5] + b"\x02\x0c" + value[8:]])
    assert (beyond.dead[0].code, "has no message [6]" in beyond.dead[0].reason) == ("malformed", True)


PROTO_COMPATIBLE: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "a field was added": ({**PROTO, "shop": "string"}, {**GOOD, "shop": "s"}),
    "other numbers": (dict(reversed(PROTO.items())), GOOD),
    "a narrower number": ({**PROTO, "amount": "float"}, GOOD),
    "a timestamp": (
        {**PROTO, "ts": "google.protobuf.Timestamp"},
        {**GOOD, "ts": {"seconds": NOW // 1000, "nanos": NOW % 1000 * 1_000_000}},
    ),
    "a wrapper": (
        {**PROTO, "amount": "google.protobuf.DoubleValue"},
        {**GOOD, "amount": {"value": 2.5}},
    ),
    "an enum for a text": ({**PROTO, "note": "Kind"}, {**GOOD, "note": 3}),
}


@pytest.mark.parametrize("change", PROTO_COMPATIBLE)
def test_a_compatible_change_of_a_protobuf_schema_goes_through_beside_what_was_before(
    change: str, server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    fields, record = PROTO_COMPATIBLE[change]
    before = protobuf(client, message_type(PROTO), GOOD)
    found = decode(codec_of("protobuf", server), [*before, *protobuf(client, message_type(fields), record)])
    assert not found.dead
    assert found.fields["amount"].tolist() == [2.5, 2.5]
    assert found.times.tolist() == [NOW, NOW]
    assert found.fields["note"][1] == ("SALE" if change == "an enum for a text" else None)


@pytest.mark.parametrize(
    ("fields", "record", "reason"),
    [
        ({**PROTO, "amount": "string"}, {**GOOD, "amount": "2.5"}, "Expected `float`, got `str`"),
        ({k: v for k, v in PROTO.items() if k != "amount"}, WITHOUT, "missing required field `amount`"),
        ({**PROTO, "amount": "google.protobuf.DoubleValue"}, WITHOUT, "Expected `float`, got `null`"),
    ],
    ids=["another type", "taken away", "an absent wrapper"],
)
def test_a_protobuf_field_that_no_longer_fits_is_named(
    fields: dict[str, str],
    record: dict[str, Any],
    reason: str,
    server: SchemaRegistryServer,
    client: SchemaRegistryClient,
) -> None:
    good = protobuf(client, message_type(PROTO), GOOD)
    found = decode(codec_of("protobuf", server), [*good, *protobuf(client, message_type(fields), record)])
    assert found.offsets.tolist() == [0]
    assert (found.dead[0].stage, found.dead[0].field) == ("decode", "amount")
    assert reason in found.dead[0].reason


def test_bytes_that_are_no_protobuf_message_are_dead_letters(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    (good,) = protobuf(client, message_type(PROTO), GOOD)
    found = decode(codec_of("protobuf", server), [good, good[:-2], good[:5], good[:5] + b"\xff" * 9])
    assert [(d.offset, d.code) for d in found.dead] == [(1, "malformed"), (2, "malformed"), (3, "malformed")]


def test_json_behind_a_schema_id_is_decoded_without_asking_the_registry(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    properties = {"payment_id": {"type": "string"}, "amount": {"type": ["number", "string"]}}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Payment", "type": "object"}
    write = JSONSerializer(json.dumps({**schema, "properties": properties}), client)
    values = [write({**GOOD, **more}, CONTEXT) for more in ({}, {"shop": "new"}, {"amount": "2.5"})]
    asked = server.asked.total()
    found = decode(codec_of("json-schema", server), [*values, json.dumps(GOOD).encode()])
    assert server.asked.total() == asked
    assert found.offsets.tolist() == [0, 1]
    assert [(d.code, d.field) for d in found.dead] == [("invalid", "amount"), ("no_schema", "")]


def test_a_schema_of_another_kind_than_declared_is_a_dead_letter_that_says_both(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    values = protobuf(client, message_type(PROTO), GOOD)
    (letter,) = decode(codec_of("avro", server), values).dead
    assert letter.code == "other_codec"
    assert "is PROTOBUF, the source is declared codec='avro'" in letter.reason


def test_a_schema_is_asked_for_once_and_an_unknown_one_again_after_a_while(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    now_s, metrics = [0.0], Metrics()
    codec = codec_of("avro", server, metrics, clock=lambda: now_s[0])
    (good,) = avro(client, FIELDS, GOOD)
    id = int.from_bytes(good[1:5], "big")
    unknown = b"\0" + (77_777).to_bytes(4, "big")
    server.asked.clear()
    for _ in range(3):
        decode(codec, [good, good, unknown])
    assert server.asked == {f"/schemas/ids/{id}": 1, "/schemas/ids/77777": 3}  # it is looked for three times
    now_s[0] = UNKNOWN_S + 1
    decode(codec, [good, unknown])
    assert server.asked == {f"/schemas/ids/{id}": 1, "/schemas/ids/77777": 6}
    assert metrics.value("weir_schema_fetches_total", result="ok") == 1
    assert metrics.value("weir_schema_fetches_total", result="unknown") == 2


@pytest.mark.parametrize("status", [500, 401, 403, 429, 404])
def test_a_registry_that_refuses_to_answer_is_away_and_says_nothing_of_the_schema(
    status: int, server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    """A 404 without the registry's own code is of a wrong address, not of a missing schema."""
    values, metrics = avro(client, FIELDS, GOOD), Metrics()
    codec = codec_of("avro", server, metrics)
    server.status = status
    try:
        with pytest.raises(RegistryAway, match=str(status)):
            codec.learn(codec.unseen(values))
    finally:
        server.status = None
    assert metrics.value("weir_schema_fetches_total", result="failed") == 1
    assert codec.unseen(values)
    assert decode(codec, values).ids == ["p"]


def test_credentials_are_sent_and_the_next_address_is_tried() -> None:
    with SchemaRegistryServer(credentials=("weir", "secret")) as guarded:
        info = {"url": guarded.url, "basic.auth.user.info": "weir:secret"}
        with SchemaRegistryClient(info) as client:
            values = avro(client, FIELDS, GOOD)
        with pytest.raises(RegistryAway, match="401 Unauthorized"):
            codec_of("avro", guarded).learn([values[0][:5]])
        registry = SchemaRegistry(["http://127.0.0.1:1", guarded.url], "weir", "secret")
        assert registry.schema(1).kind == "AVRO"


def test_many_records_of_two_schemas_keep_their_order(
    server: SchemaRegistryServer, client: SchemaRegistryClient
) -> None:
    old = avro(client, FIELDS, *({**GOOD, "amount": float(i)} for i in range(0, 100, 2)))
    new = avro(client, FIELDS[::-1], *({**GOOD, "amount": float(i)} for i in range(1, 100, 2)))
    values = [value for pair in zip(old, new, strict=True) for value in pair]
    found = decode(codec_of("avro", server), values)
    assert np.array_equal(found.fields["amount"], np.arange(100.0))
