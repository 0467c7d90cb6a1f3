"""How Weir speaks to Kafka: client configurations, the topics it needs, and what an error means."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from features.spec import FOR_EVER_MS
from streams.errors import UsageError, WeirError
from streams.logs import librdkafka_logger
from streams.parts import parts_of
from streams.pipeline import Pipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)

MAX_OUTPUT_BYTES = 1_000_000
"""Kafka's default limit of a record: larger dead letters are truncated to fit."""

_WEEK_MS = 7 * 24 * 3_600_000
Config = dict[str, Any]
REQUEST_S = 10.0
"""How long Kafka may take to answer a question."""

_PASSING = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.INVALID_REPLICATION_FACTOR,  # too few brokers are up
    KafkaError.NOT_LEADER_FOR_PARTITION,  # these: a topic was made a moment ago, or a broker went
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
"""Codes of what another try may mend."""


class BrokerUnavailable(WeirError):
    """No broker answered in time."""


def client_config(settings: Settings, broker: str, name: str, on_error: Callable[[KafkaError], None]) -> Config:
    """What consumers and producers share. `broker`: host:port,… (the embedded one's address where it is that)."""
    return {
        "bootstrap.servers": broker,
        "client.id": name,
        "error_cb": on_error,
        "logger": librdkafka_logger(),
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 2000,
        **settings.kafka_security(),
    }


def session_ms(settings: Settings) -> int:
    """How long a member of a group may be silent before its partitions go to others."""
    return 3000 if settings.embedded_broker else 6000


def consumer_config(settings: Settings, base: Config, group: str, instance: str | None = None) -> Config:
    """A member of `group` whose offsets and assignment Weir manages itself.

    instance: its name as a static member, which keeps its partitions over a restart; None = a dynamic one.
    """
    return {
        **base,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "session.timeout.ms": session_ms(settings),
        "heartbeat.interval.ms": session_ms(settings) // 6,
        # The embedded broker does not wake a waiting fetch when a record comes.
        "fetch.wait.max.ms": 10 if settings.embedded_broker else 100,
        "fetch.queue.backoff.ms": 20,
        # What is fetched ahead: a fifth of a second at the highest rate, not 100,000 records a partition. A record that
        # waits takes 300 bytes more than itself.
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 16_384,
        **({"group.instance.id": instance} if instance else {}),
    }


def is_fatal(error: KafkaError) -> bool:
    """Whether a client has failed for good. What a consumer's poll brings of that is a _FATAL that is not marked so."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def is_passing(error: KafkaError) -> bool:
    """Whether another try may mend it."""
    return error.code() in _PASSING or bool(error.retriable())


def transactional_config(base: Config, transactional_id: str, commit_ms: int) -> Config:
    """A transaction lasts ten seconds at most, or two commits; a record is delivered or given up before that."""
    longest_ms = max(10_000, 2 * commit_ms + 8_000)
    return {
        **producer_config(base),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": longest_ms,
        "message.timeout.ms": longest_ms - 2_000,
        "socket.timeout.ms": 6_000,
    }


def producer_config(base: Config) -> Config:
    """Idempotent, and never giving a record up: what cannot be delivered holds the offsets back."""
    return {
        **base,
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 0,
        "linger.ms": 5,
        "compression.type": "lz4",
        # Of a key alone, also of an empty one; predictions name their partitions.
        "partitioner": "consistent",
        "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1_048_576,
        "message.max.bytes": MAX_OUTPUT_BYTES,
        "delivery.report.only.error": True,
    }


def worker_group(pipeline: Pipeline) -> str:
    """The consumer group of a pipeline's workers."""
    return f"{pipeline.name}-worker"


def waiting_for(broker: str) -> str:
    """What a process says while no broker has answered it yet."""
    return f"waiting for Kafka at {broker}"


def partition_counts(admin: AdminClient, topics: Sequence[str], *, embedded: bool = False) -> dict[str, int]:
    """Partitions of each topic, 0 where it does not exist. Raises BrokerUnavailable.

    embedded: of the embedded broker, which makes a topic when it is asked for it, and in no other way.
    """
    if embedded:
        return {topic: _on_embedded(admin, topic) for topic in topics}
    # To ask for a topic's metadata (list_topics) makes it where the broker creates topics automatically.
    asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=REQUEST_S)
    return {topic: _partitions(topic, asked[topic]) for topic in topics}


def _on_embedded(admin: AdminClient, topic: str) -> int:
    try:
        found = admin.list_topics(topic, timeout=REQUEST_S).topics[topic]
    except KafkaException as error:
        raise BrokerUnavailable(f"no Kafka broker answers: {error.args[0].str()}") from None
    return len(found.partitions) if found.error is None else 0


def _partitions(topic: str, description: Future[Any]) -> int:
    try:
        return len(description.result().partitions)
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return 0
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise UsageError(
                f"topic {topic}: not authorised; give this user the right to describe and read it"
            ) from None
        if code == KafkaError._TIMED_OUT:  # librdkafka says that it waits for the controller, whatever is away
            raise BrokerUnavailable(f"no Kafka broker answers in {REQUEST_S:.0f} s; is WEIR_BROKER right?") from None
        raise BrokerUnavailable(f"no Kafka broker answers: {error.args[0].str()}") from None


def co_partitions(pipeline: Pipeline, counts: Mapping[str, int]) -> int | None:
    """How many partitions the sources have; None while a topic is missing. Unequal counts are wrong use."""
    found = {source.topic: counts[source.topic] for source in pipeline.sources}
    if not all(found.values()):
        return None
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{topic} has {n}" for topic, n in found.items())
        raise UsageError(
            f"pipeline {pipeline.name}: its sources must have equally many partitions, but {listed}; "
            "repartition them to one count"
        )
    return next(iter(found.values()))


def loop_topics(pipeline: Pipeline, replication: int) -> list[NewTopic]:
    """The topics of one partition: deployments and blocks are compacted, the others, which are few records, kept."""
    own = pipeline.topics
    compact, keep = {"cleanup.policy": "compact"}, {"retention.ms": "-1"}
    return [
        *(NewTopic(topic, 1, replication, config=compact) for topic in (own.deployments, own.blocks)),
        *(NewTopic(topic, 1, replication, config=keep) for topic in (own.drift, own.retrain, own.alerts)),
    ]


def group_topics(pipeline: Pipeline, partitions: int, replication: int) -> list[NewTopic]:
    """The topics of the remote groups. They keep what a lost state is rebuilt from, and a day more; at least a week.

    The timestamps of their records are the clock's, also in a replay.
    """
    made = []
    for part in parts_of(pipeline)[1:]:
        keep_ms = max(_WEEK_MS, part.pipeline.spec.longest_ms + _WEEK_MS // 7)
        config = {"retention.ms": str(keep_ms if keep_ms < FOR_EVER_MS else -1)}
        made.append(NewTopic(part.pipeline.lead.topic, partitions, replication, config=config))
    return made


def ensure_topic(admin: AdminClient, pipeline: Pipeline, topic: str, settings: Settings) -> None:
    """Makes one of `loop_topics` where it is missing, for it is written also while no worker runs. Raises WeirError."""
    if partition_counts(admin, [topic], embedded=settings.embedded_broker)[topic] or settings.embedded_broker:
        return
    wanted = next(new for new in loop_topics(pipeline, settings.replication) if new.topic == topic)
    try:
        admin.create_topics([wanted])[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise WeirError(f"topic {topic} cannot be created: {error.args[0].str()}") from error


def create_topics(admin: AdminClient, pipeline: Pipeline, partitions: int, replication: int) -> None:
    """Creates the pipeline's own topics that are missing: outputs like the sources, the loop's with one partition.

    An existing predictions topic must have as many partitions as the sources: a prediction keeps its event's partition.
    """
    outputs = (pipeline.topics.predictions, pipeline.topics.dead_letters)
    alike = [NewTopic(topic, partitions, replication) for topic in outputs]
    alike += group_topics(pipeline, partitions, replication)
    wanted = [*alike, *loop_topics(pipeline, replication)]
    counts = partition_counts(admin, [new.topic for new in wanted])
    for topic in (new.topic for new in alike):
        if counts[topic] not in (0, partitions):
            raise UsageError(
                f"topic {topic} has {counts[topic]} partitions, the sources have {partitions}; "
                "delete it or repartition it"
            )
    missing = [new for new in wanted if not counts[new.topic]]
    if not missing:
        return
    for topic, future in admin.create_topics(missing, request_timeout=REQUEST_S).items():
        try:
            future.result()
            log.info("topic created", topic=topic)
        except KafkaException as error:
            reason = error.args[0]
            if is_passing(reason):
                raise BrokerUnavailable(f"topic {topic} cannot be created yet: {reason.str()}") from None
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise UsageError(f"topic {topic} cannot be created: {reason.str()}") from None


def largest_record(config: Config, topic: str) -> int:
    """Bytes of the largest record that the topic takes; Kafka's default where the broker does not say."""
    admin = AdminClient(config)
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        found = admin.describe_configs([asked], request_timeout=REQUEST_S)[asked].result()
        return int(found["max.message.bytes"].value)
    except (KafkaException, KeyError) as error:
        log.warning("the topic's largest record is not known", topic=topic, error=str(error), taken=MAX_OUTPUT_BYTES)
        return MAX_OUTPUT_BYTES


def prepare_topics(
    pipeline: Pipeline, settings: Settings, config: Config, *, stopped: Callable[[], bool], say: Callable[[str], None]
) -> int | None:
    """Waits until the sources' topics exist, creates Weir's own; returns the partition count, None if stopped.

    What it waits for is said through `say` (for /health/ready) and in the log, once a change.
    """
    admin = AdminClient(config)
    said = ""
    say(waiting_for(config["bootstrap.servers"]))  # the first answer may take its time
    while not stopped():
        try:
            topics = [source.topic for source in pipeline.sources]
            counts = partition_counts(admin, topics, embedded=settings.embedded_broker)
            partitions = co_partitions(pipeline, counts)
            if partitions is not None:
                if settings.embedded_broker:
                    groups = [new.topic for new in group_topics(pipeline, partitions, 1)]
                    partition_counts(admin, [*vars(pipeline.topics).values(), *groups], embedded=True)
                else:
                    create_topics(admin, pipeline, partitions, settings.replication)
                say("")
                return partitions
            missing = ", ".join(topic for topic, count in counts.items() if not count)
            waiting = f"waiting for topics that do not exist yet: {missing}"
        except BrokerUnavailable as error:
            waiting = f"{waiting_for(config['bootstrap.servers'])}: {error}"
        if waiting != said:
            log.warning(waiting)
            say(waiting)
            said = waiting
        time.sleep(0.5)
    return None
