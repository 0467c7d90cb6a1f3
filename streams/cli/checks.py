"""What `weir doctor` looks at. Each check says what it found and, where something is wrong, the mend."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from streams.settings import Settings, masked_url, unknown_variables

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from streams.pipeline import Pipeline

# Older versions have bugs that this project knows to bite, or published vulnerabilities.
PACKAGE_FLOORS = {
    "confluent-kafka": (2, 13, 2),
    "mlflow-skinny": (3, 0),
    "numba": (0, 60),
    "onnx": (1, 21),
    "onnxruntime": (1, 20),
    "redis": (5, 1),
}
# CVE-2025-49844, by release series; a series that is not listed and newer than all of these has the fix.
REDIS_FLOORS = {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
VALKEY_FLOORS = {(7, 2): 11, (8, 0): 6, (8, 1): 4}
_CVE = "CVE-2025-49844 (remote code execution through Lua)"
_BROKER_S = 5.0


@dataclass(frozen=True)
class Check:
    """One row of the report."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def check_installation() -> Iterator[Check]:
    """Python and the packages whose version matters."""
    version = platform.python_version()
    tried = sys.version_info[:2] <= (3, 13)
    yield Check("python", "ok" if tried else "warn", version, "" if tried else "use 3.11 to 3.13: they are tried")
    good = []
    for package, floor in PACKAGE_FLOORS.items():
        wanted = ".".join(map(str, floor))
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Check("packages", "fail", f"{package} is not installed", f"install {package}>={wanted}")
            continue
        if _numbers(installed) < floor:
            yield Check("packages", "fail", f"{package} {installed} is too old", f"install {package}>={wanted}")
        else:
            good.append(f"{package} {installed}")
    yield Check("packages", "ok", ", ".join(good))


def check_settings(settings: Settings) -> Iterator[Check]:
    """Variables that look like settings and are none; the data directory."""
    unknown = unknown_variables()
    for name, meant in unknown.items():
        yield Check("settings", "warn", f"{name} is not a setting", meant or "remove it")
    if not unknown:
        yield Check("settings", "ok", f"guarantee {settings.guarantee}, commits every {settings.commit_interval} ms")
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data_dir):
            pass
        yield Check("data directory", "ok", str(settings.data_dir))
    except OSError as error:
        found = f"{settings.data_dir}: {error.strerror or error}"
        yield Check("data directory", "fail", found, "set WEIR_DATA_DIR to a folder that can be written")


def check_broker(settings: Settings, pipeline: Pipeline | None) -> Iterator[Check]:
    """Whether brokers answer, and what they say of the pipeline's topics."""
    if settings.embedded_broker:
        yield Check("broker", "ok", "embedded: started by the commands that need it")
        return
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from streams.kafka import client_config

    admin = AdminClient(client_config(settings, settings.broker, "weir-doctor", lambda _: None))
    try:
        cluster = admin.list_topics(timeout=_BROKER_S)
    except KafkaException as error:
        mend = "start it, or see WEIR_BROKER and WEIR_SECURITY_*"
        yield Check("broker", "fail", f"{settings.broker} does not answer: {error.args[0].str()}", mend)
        return
    yield Check("broker", "ok", f"{settings.broker}, {len(cluster.brokers)} broker(s)")
    if pipeline is not None:
        counts = {name: len(topic.partitions) for name, topic in cluster.topics.items()}
        yield from check_topics(pipeline, counts)
        yield from _check_retention(admin, pipeline, counts)


def check_topics(pipeline: Pipeline, counts: Mapping[str, int]) -> Iterator[Check]:
    """The pipeline's topics against `counts`, the partitions of those that exist."""
    topics = [source.topic for source in pipeline.sources]
    for topic in topics:
        if topic not in counts:
            yield Check(f"topic {topic}", "fail", "does not exist", "create it; the worker waits for it")
    found = {topic: counts[topic] for topic in topics if topic in counts}
    listed = ", ".join(f"{topic} {n}" for topic, n in found.items())
    if len(set(found.values())) > 1:
        yield Check("co-partitions", "fail", listed, "give the pipeline's sources equally many partitions")
    elif found:
        yield Check("co-partitions", "ok", listed)
    lead = counts.get(pipeline.lead.topic)
    for topic in (pipeline.topics.predictions, pipeline.topics.dead_letters):
        if lead is not None and counts.get(topic, lead) != lead:
            mend = f"delete it or give it {lead}: records keep their event's partition"
            yield Check(f"topic {topic}", "fail", f"{counts[topic]} partitions", mend)


def check_retention(topic: str, needed_ms: int, config: Mapping[str, str]) -> Check:
    """Whether `topic` keeps events as long as features look back: what a rebuild reads."""
    from features.spec import FOR_EVER_MS

    name, kept_ms = f"retention {topic}", int(config.get("retention.ms", "-1"))
    if "delete" not in config.get("cleanup.policy", "delete"):
        return Check(name, "warn", "compacted: old events of a key are dropped", "set cleanup.policy=delete")
    if kept_ms < 0:
        return Check(name, "ok", "kept for ever")
    if needed_ms >= FOR_EVER_MS:
        mend = "retention.ms=-1 keeps all; else a rebuild of state counts what is still there"
        return Check(name, "warn", f"{kept_ms / 86_400_000:.3g} d, a feature counts all events", mend)
    found = f"{kept_ms / 86_400_000:.3g} d, features look back {needed_ms / 86_400_000:.3g} d"
    if kept_ms < needed_ms:
        return Check(name, "warn", found, f"set retention.ms to at least {needed_ms}: a rebuild of state reads it")
    return Check(name, "ok", found)


def _check_retention(admin: AdminClient, pipeline: Pipeline, counts: Mapping[str, int]) -> Iterator[Check]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    from features.spec import reach_ms

    needed = {
        source.topic: max((reach_ms(a) for a in pipeline.spec.kept if a.stream == index), default=0)
        for index, source in enumerate(pipeline.sources)
        if source.topic in counts
    }
    asked = [ConfigResource(ResourceType.TOPIC, topic) for topic in needed]
    if not asked:
        return
    for resource, future in admin.describe_configs(asked, request_timeout=_BROKER_S).items():
        try:
            config = {name: str(entry.value) for name, entry in future.result().items()}
        except KafkaException as error:
            yield Check(f"retention {resource.name}", "warn", error.args[0].str(), "give this user DescribeConfigs")
        else:
            yield check_retention(resource.name, needed[resource.name], config)


def check_redis(settings: Settings) -> Iterator[Check]:
    """Whether Redis answers, its version, and that it does not drop rows on its own."""
    if settings.embedded_redis:
        yield Check("redis", "ok", "embedded: started by the commands that need it")
        return
    from features.store import StoreMisconfigured, StoreUnavailable

    try:
        servers = asyncio.run(_redis_info(settings.redis))
    except (StoreUnavailable, StoreMisconfigured) as error:
        yield Check("redis", "fail", str(error), "start it, or see WEIR_REDIS")
        return
    if len(servers) > 1:
        yield Check("redis", "ok", f"a cluster of {len(servers)} primaries: {', '.join(sorted(servers))}")
    yield from dict.fromkeys(check for info in servers.values() for check in judge_redis(info))


def judge_redis(info: Mapping[str, Any]) -> Iterator[Check]:
    """The answer to INFO."""
    valkey = "valkey_version" in info
    name, text = ("Valkey", str(info["valkey_version"])) if valkey else ("Redis", str(info.get("redis_version")))
    version = _numbers(text)
    floors = VALKEY_FLOORS if valkey else REDIS_FLOORS
    major, minor, patch = (*version, 0, 0, 0)[:3]
    floor = floors.get((major, minor))
    if version < (7,):
        yield Check("redis", "fail", f"{name} {text} is too old", "use Redis 7 or later, or Valkey")
    elif (major, minor) < max(floors) if floor is None else patch < floor:
        mend = f"update it, or take EVAL away from its users: {_CVE}"
        yield Check("redis", "warn", f"{name} {text}", mend)
    else:
        yield Check("redis", "ok", f"{name} {text}")
    policy, limit = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if limit and policy != "noeviction":
        found = f"maxmemory {limit}, policy {policy}"
        yield Check("redis memory", "fail", found, "set maxmemory-policy noeviction: it would drop feature state")
    else:
        yield Check("redis memory", "ok", f"maxmemory {limit or 'unlimited'}, policy {policy}")


def check_registry(settings: Settings, model: str) -> Iterator[Check]:
    """Whether the model registry answers."""
    from models.errors import RegistryError
    from streams.release import open_registry

    try:
        versions = open_registry(settings).versions(model)
    except RegistryError as error:
        yield Check(
            "registry",
            "fail",
            str(error).replace(settings.registry, masked_url(settings.registry)),
            "start it, or see WEIR_REGISTRY",
        )
    else:
        yield Check("registry", "ok", f"{masked_url(settings.registry)}, {len(versions)} version(s) of {model}")


def check_onnx(settings: Settings) -> Iterator[Check]:
    """Runs a model of one node: which provider ONNX Runtime takes of those that are asked for, and that it works."""
    from onnx import TensorProto, helper

    from models.errors import ModelError
    from models.runner import Runner, providers_of

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "score")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["score"])], "doctor", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        providers = providers_of(settings.onnx_providers)
        runner = Runner(model.SerializeToString(), ["x"], sizes=(1,), providers=providers)
    except ModelError as error:
        yield Check("onnx", "fail", str(error), "see WEIR_ONNX_PROVIDERS, or install onnxruntime again")
    else:
        yield Check("onnx", "ok", runner.provider)
        runner.release()


def check_kernels() -> Iterator[Check]:
    """Whether the feature kernels have been compiled on this machine."""
    from features.kernel import walk

    folder = Path(str(walk.stats.cache_path))
    if any(folder.glob("kernel.*walk*.nbi")):
        yield Check("kernels", "ok", f"compiled, in {folder}")
    elif os.access(folder, os.W_OK):
        yield Check("kernels", "warn", "not compiled yet", "nothing to do: the first start takes half a minute")
    else:
        yield Check("kernels", "warn", f"{folder} cannot be written", "set NUMBA_CACHE_DIR to a folder that can")


async def _redis_info(url: str) -> dict[str, dict[str, Any]]:
    from features.redis_store import RedisStore

    store = RedisStore(url, "doctor")
    try:
        return await store.servers()
    finally:
        await store.close()


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not part[:1].isdigit():
            break
        numbers.append(int(digits))
    return tuple(numbers)
