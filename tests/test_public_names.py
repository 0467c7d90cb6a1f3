"""The public surface: a change in this file is a change for users."""

from __future__ import annotations

import inspect

import streams
from streams.cli import app
from streams.entity import Entity
from streams.pipeline import Labels, Pipeline
from streams.settings import Settings
from streams.source import Source


def test_what_a_pipeline_file_imports() -> None:
    assert sorted(streams.__all__) == [
        "Blocks",
        "DeclarationError",
        "Event",
        "Frequency",
        "Hashed",
        "Labels",
        "Pipeline",
        "Retrain",
        "Rollout",
        "Rule",
        "Source",
        "UsageError",
        "Vocabulary",
        "Watch",
        "WeirError",
        "compute",
        "ratio",
    ]
    assert all(hasattr(streams, name) for name in streams.__all__)


def names_of(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_how_a_pipeline_is_declared() -> None:
    assert names_of(Source) == ["topic", "event", "key", "id", "time", "partitioner", "max_skew", "codec", "rules"]
    rule = ["of", "ge", "gt", "le", "lt", "among", "not_null", "nulls", "behind", "silence", "on_violation"]
    assert names_of(streams.Rule) == rule
    assert names_of(Source.field) == ["field", "name"]
    assert names_of(Source.category) == ["field", "encoding", "name"]
    assert names_of(Source.by) == ["fields", "name", "exact", "fresh", "on_stale"]
    assert names_of(Source.calendar) == ["part", "zone", "name"]
    assert names_of(Entity.count) == ["windows", "where", "within", "name"]
    assert names_of(Entity.rate) == ["windows", "where", "name"]
    for windowed in (
        Entity.sum,
        Entity.mean,
        Entity.variance,
        Entity.std,
        Entity.min,
        Entity.max,
        Entity.first,
        Entity.streak,
        Entity.distinct,
    ):
        assert names_of(windowed) == ["field", "windows", "where", "within", "name"]
    assert names_of(Entity.quantile) == ["field", "q", "windows", "where", "within", "name"]
    assert names_of(Entity.most_frequent) == ["field", "windows", "values", "where", "within", "name"]
    assert names_of(Entity.decayed_count) == ["half_lives", "where", "within", "name"]
    assert names_of(Entity.decayed_mean) == ["field", "half_lives", "where", "within", "name"]
    assert names_of(Entity.lag) == ["field", "n", "where", "within", "name"]
    assert names_of(Entity.last) == ["field", "where", "within", "name"]
    assert names_of(Entity.since_last) == ["where", "within", "name"]
    assert names_of(streams.compute) == ["name", "function", "dtype", "uses"]
    assert names_of(streams.ratio) == ["name", "upper", "lower"]
    assert names_of(Labels) == ["topic", "event", "id", "value", "within", "time", "key", "codec"]
    assert names_of(streams.Blocks) == ["every"]
    assert names_of(streams.Retrain) == [
        "function",
        "on",
        "min_labels",
        "cooldown",
        "max_age",
        "every",
        "budget",
        "seed",
    ]
    assert names_of(streams.Rollout) == [
        "rows",
        "most_rows",
        "guard_rows",
        "margin",
        "confidence",
        "calibration",
        "max_unscored",
        "latency",
        "keep_first",
    ]
    assert names_of(Pipeline) == [
        "name",
        "score",
        "features",
        "model",
        "learn",
        "labels",
        "blocks",
        "drift",
        "retrain",
        "rollout",
        "missing",
        "output",
        "rules",
    ]


def test_how_features_are_read_online() -> None:
    from streams import online

    assert sorted(online.__all__) == [
        "BlockingFeatureReader",
        "FeatureReader",
        "ReadError",
        "Reading",
        "Readings",
        "StoreMisconfigured",
        "StoreUnavailable",
        "Unreadable",
    ]
    for reader in (online.FeatureReader, online.BlockingFeatureReader):
        assert names_of(reader) == ["pipeline", "redis_url", "partitions", "timeout_s"]
        assert names_of(reader.read) == ["entities", "at", "features", "ask_all"]


def test_the_commands() -> None:
    assert [command.name for command in app.registered_commands] == [
        "demo",
        "run",
        "worker",
        "monitor",
        "trainer",
        "status",
        "train",
        "bench",
        "doctor",
    ]
    groups = {
        group.name: [command.name for command in group.typer_instance.registered_commands]
        for group in app.registered_groups
        if group.typer_instance is not None
    }
    assert groups == {
        "models": ["list", "deploy", "rollback"],
        "drift": ["list", "show"],
        "retrain": ["list", "trigger"],
        "features": ["backfill", "diff", "fill", "list", "catalogue", "read", "serve", "check"],
        "config": ["show"],
    }


def test_the_settings() -> None:
    assert [name.upper() for name in Settings.model_fields] == [
        "BROKER",
        "REDIS",
        "DATA_DIR",
        "REGISTRY",
        "SCHEMA_REGISTRY",
        "SCHEMA_REGISTRY_USERNAME",
        "SCHEMA_REGISTRY_PASSWORD",
        "SCHEMA_REGISTRY_CA",
        "GUARANTEE",
        "COMMIT_INTERVAL",
        "CHECKPOINT_INTERVAL",
        "HTTP",
        "CACHE_ENTITIES",
        "ON_STORE_AWAY",
        "BATCH_RECORDS",
        "ONNX_THREADS",
        "ONNX_PROVIDERS",
        "REPLICATION",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "SECURITY_PROTOCOL",
        "SECURITY_SASL_MECHANISM",
        "SECURITY_USERNAME",
        "SECURITY_PASSWORD",
        "SECURITY_CA",
        "SECURITY_CERT",
        "SECURITY_KEY",
    ]
