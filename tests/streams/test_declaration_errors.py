"""Pipelines that cannot be: each is one message that names the feature (or the source) and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from features.spec import Hashed
from features.windows import Window, WindowError
from streams import Blocks, DeclarationError, Event, Labels, Pipeline, Retrain, Rollout, Source, Watch, compute


class Payment(Event):
    payment_id: str
    user_id: str
    merchant: str
    amount: float
    ts: int
    terminal: int | None = None


class Refund(Event):
    payment_id: str
    user_id: int
    amount: float
    ts: int


class Request(Event):
    payment_id: str
    user_id: str
    ts: int


class Swipe(Event):
    payment_id: str
    user_id: str
    terminal: float
    ts: int


class Chargeback(Event):
    payment_id: str
    reason: str
    is_fraud: bool
    at: float


class Tags(Event):
    tags: list[str]


class Empty(Event):
    pass


def source(topic: str = "payments", event: Any = Payment, **options: Any) -> Source:
    return Source(topic, event, **{"key": "user_id", "id": "payment_id", "time": "ts", **options})


payments = source()
user = payments.by("user_id")
refunds = source("refunds", Refund)
anonymous = source(id=None)


def pipeline(*features: Any, **options: Any) -> Pipeline:
    return Pipeline(
        options.pop("name", "fraud"),
        **{
            "score": payments,
            "features": features or [payments.field("amount")],
            "model": "fraud",
            **options,
        },
    )


def labels(**options: Any) -> Labels:
    return Labels("chargebacks", Chargeback, **{"id": "payment_id", "value": "is_fraud", **options})


def window_error(text: str) -> str:
    """What `features.windows` says of a window that cannot be."""
    with pytest.raises(WindowError) as caught:
        Window.parse(text)
    return str(caught.value)


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    # fields
    "a field that the event lacks": (
        lambda: payments.field("amout"),
        "feature amout: payments has no field 'amout'; did you mean 'amount'?",
    ),
    "an aggregate of a field that the event lacks": (
        lambda: user.sum("amout", "1h"),
        "feature user_id_sum_amout_1h: payments has no field 'amout'; did you mean 'amount'?",
    ),
    "a field that is like none": (
        lambda: user.last("zzz"),
        "feature user_id_last_zzz: payments has no field 'zzz'; "
        "it has payment_id, user_id, merchant, amount, ts, terminal",
    ),
    "a mean of texts": (
        lambda: user.mean("merchant", "1h"),
        "feature user_id_mean_merchant_1h: mean needs a number, merchant of payments is a string; count it instead",
    ),
    "a text as a number": (
        lambda: pipeline(payments.field("merchant")),
        "feature merchant: field merchant of payments is a string; declare it as a category",
    ),
    "a number as a category": (
        lambda: pipeline(payments.category("amount", ["1"])),
        "feature amount: field amount of payments is a number, not a category",
    ),
    "a category without values": (
        lambda: payments.category("merchant", []),
        "feature merchant: the vocabulary is empty; list its values, or use Hashed(buckets)",
    ),
    "a category of numbers": (
        lambda: payments.category("merchant", [1, 2]),  # type: ignore[list-item]
        "feature merchant: give its values as a list of texts, or Hashed(buckets)",
    ),
    "a category with a value twice": (
        lambda: payments.category("merchant", ["a", "b", "a"]),
        "feature merchant: the value 'a' is listed twice",
    ),
    "hashes into no bucket": (
        lambda: payments.category("merchant", Hashed(0)),
        "feature merchant: Hashed(0) needs at least one bucket",
    ),
    "a feature's name with a blank": (
        lambda: payments.field("amount", name="the amount"),
        "feature 'the amount': a name is made of letters, digits and _, and begins with a letter",
    ),
    # windows
    "a window that is not a multiple of its pane": (
        lambda: user.count("90m", "61m"),
        f"feature user_id_count_61m: {window_error('61m')}",
    ),
    "a window that is no duration": (
        lambda: user.mean("amount", "1 hour"),
        "feature user_id_mean_amount_1 hour: '1 hour' is not a duration; "
        'write a whole number and ms, s, m, h or d, like "15m"',
    ),
    "a number as a window": (
        lambda: user.count(3600),  # type: ignore[arg-type]
        "feature user_id_count_3600: '3600' is not a duration; write a whole number and ms, s, m, h or d, like \"15m\"",
    ),
    "an aggregate without a window": (
        lambda: user.count(),
        'feature user_id_count: count needs a window, for example "1h"',
    ),
    "a window in place of the field": (
        lambda: user.sum("1h"),
        'feature user_id_sum_1h: sum needs a window, for example "1h"',
    ),
    "within that is no duration": (
        lambda: user.since_last(within="long"),
        "feature user_id_since_last: within: 'long' is not a duration; "
        'write a whole number and ms, s, m, h or d, like "15m"',
    ),
    # entities
    "an option of remote groups for an entity in the key": (
        lambda: payments.by("user_id", exact=True),
        "entity user_id: exact= is for entities that are not in the key of payments; this one is (user_id), and always "
        "exact: leave it out",
    ),
    "exact that is no yes or no": (
        lambda: payments.by("merchant", exact="yes"),  # type: ignore[arg-type]
        "entity merchant: exact is True or False, not 'yes'",
    ),
    "a bound for exact features": (
        lambda: payments.by("merchant", exact=True, fresh="5s"),
        "entity merchant: exact features are never stale; leave fresh= and on_stale= out, or exact=True",
    ),
    "what becomes of the stale without a bound": (
        lambda: payments.by("merchant", on_stale="mark"),
        'entity merchant: on_stale needs a bound, for example fresh="5s"',
    ),
    "another end for the stale": (
        lambda: payments.by("merchant", fresh="5s", on_stale="drop"),  # type: ignore[arg-type]
        "entity merchant: on_stale is \"mark\" or \"withhold\", not 'drop'",
    ),
    "a bound that is no duration": (
        lambda: payments.by("merchant", fresh="soon"),
        "entity merchant: fresh: 'soon' is not a duration; write a whole number and ms, s, m, h or d, like \"15m\"",
    ),
    "a bound that no owner keeps": (
        lambda: payments.by("merchant", fresh="100ms"),
        "entity merchant: fresh='100ms' is shorter than owners write, which is every second; give 1s or more",
    ),
    "a remote group declared in two ways": (
        lambda: pipeline(
            features=[payments.by("merchant", exact=True).count("1h"), payments.by("merchant").count("24h")]
        ),
        "entity merchant: declared twice, with another exact=, fresh= or on_stale=; declare it once: "
        "merchant = source.by('merchant', …)",
    ),
    "a remote group of a stream that is only learned from": (
        lambda: pipeline(learn=[other := source("swipes", Swipe)], features=[other.by("payment_id").count("1h")]),
        "feature payment_id_count_1h: payment_id is not in the key of swipes (user_id), which is only learned from; "
        "group by user_id as well, or score swipes",
    ),
    "an entity by a field that the event lacks": (
        lambda: payments.by("user_id", "shop"),
        "entity user_id_shop: payments has no field 'shop'; it has payment_id, user_id, merchant, amount, ts, terminal",
    ),
    "an entity of nothing": (
        lambda: payments.by(),
        "payments.by(): name the field(s) to group by, for example by('user_id')",
    ),
    "an entity by a field twice": (
        lambda: payments.by("user_id", "user_id"),
        "entity user_id_user_id: a field is named twice",
    ),
    "an entity by a fraction": (
        lambda: payments.by("user_id", "amount"),
        "entity user_id_amount: amount of payments must be a str or an int to group by",
    ),
    # sources
    "a key that the event lacks": (
        lambda: source(key="user"),
        "source payments: key='user': Payment has no field 'user'; did you mean 'user_id'?",
    ),
    "a key that is a fraction": (
        lambda: source(key="amount"),
        "source payments: key='amount' must be a str or an int",
    ),
    "a key that may be null": (
        lambda: source(key="terminal"),
        "source payments: key='terminal' may not be null: take away its | None",
    ),
    "an id that the event lacks": (
        lambda: source(id="id"),
        "source payments: id='id': Payment has no field 'id'; "
        "it has payment_id, user_id, merchant, amount, ts, terminal",
    ),
    "a time that is not whole milliseconds": (
        lambda: source(time="amount"),
        "source payments: time='amount' must be an int: milliseconds since 1970",
    ),
    "a time that the event lacks": (
        lambda: source(time="tss"),
        "source payments: time='tss': Payment has no field 'tss'; did you mean 'ts'?",
    ),
    "a partitioner that is not known": (
        lambda: source(partitioner="md5"),
        'source payments: partitioner must be "crc32" or "murmur2"',
    ),
    "a skew that is no duration": (
        lambda: source(max_skew="an hour"),
        "source payments: max_skew: 'an hour' is not a duration; write a whole number and ms, s, m, h or d, "
        'like "15m"',
    ),
    "a topic that Kafka refuses": (
        lambda: source("my payments"),
        "source my payments: 'my payments' is not a topic's name; use letters, digits, '.', '_' and '-'",
    ),
    # events
    "an event with a list": (
        lambda: source(event=Tags),
        "event Tags: field tags must be int, float, bool or str (with | None if it may be null); "
        "mend it, or leave it out: fields that are not named are ignored",
    ),
    "an event without fields": (
        lambda: source(event=Empty),
        "event Empty: it has no fields; annotate at least its key and its time",
    ),
    "an event that is a plain class": (
        lambda: source(event=int),
        "<class 'int'> is not an event type: write class int(Event) with its fields",
    ),
    # pipelines
    "two features of one name": (
        lambda: pipeline(payments.field("amount"), payments.field("amount")),
        "feature amount: declared twice; remove one or rename it with name=",
    ),
    "two aggregates of one name": (
        lambda: pipeline(user.count("1h"), user.count("1h")),
        "feature user_id_count_1h: declared twice; remove one, or rename the entity: "
        "payments.by('user_id', name=\"user_id_2\")",
    ),
    "two streams that count the same": (
        lambda: pipeline(user.count("1h"), source("refunds").by("user_id").count("1h"), learn=[source("refunds")]),
        "feature user_id_count_1h: declared twice; two streams give it; rename one's entity: "
        "refunds.by('user_id', name=\"user_id_refunds\")",
    ),
    "a source that is not in the pipeline": (
        lambda: pipeline(source("refunds").by("user_id").sum("amount", "1h")),
        "feature user_id_sum_amount_1h: its source refunds is not in the pipeline; add it to learn=[…]",
    ),
    "a field of a stream that is not scored": (
        lambda: pipeline(source("refunds").field("amount"), learn=[source("refunds")]),
        "feature amount: a field of refunds, but payments is scored; take a field of payments, or aggregate "
        "it: refunds.by('user_id').last('amount')",
    ),
    "an entity that the scored event does not name": (
        lambda: pipeline(
            payments.by("user_id", "merchant").count("1h"),
            score=source("requests", Request),
            learn=[payments],
        ),
        "feature user_id_merchant_count_1h: the scored event must name its entity, but requests has no field "
        "'merchant'; it has payment_id, user_id, ts",
    ),
    "an entity that is a whole number in one stream only": (
        lambda: pipeline(
            payments.by("user_id", "terminal").count("1h"), score=source("swipes", Swipe), learn=[payments]
        ),
        "feature user_id_terminal_count_1h: terminal is a whole number in only one of swipes and payments; "
        "make them the same",
    ),
    "an entity whose field is of two kinds": (
        lambda: pipeline(refunds.by("user_id").count("1h"), learn=[refunds]),
        "feature user_id_count_1h: user_id is a string in payments, a number in refunds; make them the same",
    ),
    "two sources of one topic": (
        lambda: pipeline(learn=[source(max_skew="2h")]),
        "source payments: two sources read this topic; declare it once",
    ),
    "sources with unlike keys": (
        lambda: pipeline(learn=[source("shops", key="merchant")]),
        "source shops is keyed by merchant, payments by user_id: "
        "streams of one pipeline need the same key, partitioner and partition count",
    ),
    "sources with unlike partitioners": (
        lambda: pipeline(learn=[source("shops", partitioner="murmur2")]),
        "source shops is partitioned by murmur2, payments by crc32: "
        "streams of one pipeline need the same key, partitioner and partition count",
    ),
    "learn that is not a list": (
        lambda: pipeline(learn=refunds),
        "pipeline fraud: learn is a list: learn=[refunds]",
    ),
    "a pipeline that reads what it writes": (
        lambda: pipeline(learn=[source("fraud.predictions")]),
        "source fraud.predictions: that is a topic which pipeline fraud writes; rename one",
    ),
    "a pipeline's name that is no topic": (
        lambda: pipeline(name="my fraud"),
        "pipeline 'my fraud': a name has at most 200 letters, digits, '.', '_' and '-', "
        "and begins with a letter or digit",
    ),
    "a model's name that is a path": (
        lambda: pipeline(model="../fraud"),
        "model '../fraud': a name has at most 200 letters, digits, '.', '_' and '-', and begins with a letter or digit",
    ),
    "a pipeline without features": (
        lambda: Pipeline("fraud", score=payments, features=[], model="m"),
        "pipeline fraud: it has no features; give the model at least one",
    ),
    "a feature that is only a name": (
        lambda: pipeline("amount"),
        "pipeline fraud: 'amount' is not a feature; "
        "use source.field(), source.category(), source.by().count(), compute() …",
    ),
    "an empty output": (
        lambda: pipeline(output=""),
        "pipeline fraud: output is empty; name an output of the ONNX model or leave it out",
    ),
    # compute
    "a computed feature of a field that the event lacks": (
        lambda: pipeline(compute("night", lambda c: c["tss"] > 6)),
        "feature night: payments has no field 'tss'; did you mean 'ts'?",
    ),
    "a computed feature that is not vectorised": (
        lambda: pipeline(compute("big", lambda c: c["merchant"] + 1)),
        'feature big: the function fails on a sample batch: can only concatenate list (not "int") to list; '
        "it gets columns (arrays, or lists of texts), not single values",
    ),
    "a computed feature with one value for all": (
        lambda: pipeline(compute("total", lambda c: c["amount"].sum())),
        "feature total: the function must return one number a record (here 2), it returned float64 []",
    ),
    "a computed feature that is no function": (
        lambda: compute("night", 3),  # type: ignore[arg-type]
        "feature night: 3 is not a function of the event's columns",
    ),
    "a computed feature of texts": (
        lambda: compute("night", len, dtype="str"),
        "feature night: dtype must be one of float32, float64, int32, int64, bool, not 'str'",
    ),
    # labels and retraining
    "labels by a field that they lack": (
        lambda: labels(id="payment"),
        "labels: id='payment': Chargeback has no field 'payment'; did you mean 'payment_id'?",
    ),
    "labels that are texts": (
        lambda: labels(value="reason"),
        "labels: value='reason' is a string; give a function that makes it a number",
    ),
    "labels whose time is a fraction": (
        lambda: labels(time="at"),
        "labels: time='at' must be an int: milliseconds since 1970",
    ),
    "labels by a function of a field that they lack": (
        lambda: labels(value=lambda c: c["fraud"] > 0),
        "labels: value: chargebacks has no field 'fraud'; did you mean 'is_fraud'?",
    ),
    "labels within no duration": (
        lambda: labels(within="7"),
        "labels: within: '7' is not a duration; write a whole number and ms, s, m, h or d, like \"15m\"",
    ),
    "labels of no codec": (
        lambda: labels(codec="xml"),
        "labels: codec='xml' is none of json, avro, protobuf, json-schema",
    ),
    "labels of a source's topic in another codec": (
        lambda: pipeline(labels=Labels("payments", Payment, id="payment_id", value="amount", codec="avro")),
        "labels: payments is a source with codec='json'; give the labels the same, not 'avro'",
    ),
    "labels for events without an id": (
        lambda: pipeline(anonymous.field("amount"), score=anonymous, labels=labels()),
        "labels: payments has no id to join them by; name its field: Source(…, id=…)",
    ),
    "labels whose id is of another kind": (
        lambda: pipeline(labels=Labels("refunds", Refund, id="user_id", value="amount")),
        "labels: id user_id of refunds is a number, payment_id of payments a string; make them the same",
    ),
    "a trainer that is not module:function": (
        lambda: Retrain("examples/train.py"),
        "retrain: 'examples/train.py' is not \"module:function\"",
    ),
    "a retrain without labels": (
        lambda: pipeline(retrain=Retrain()),
        "pipeline fraud: retrain needs labels; declare labels=Labels(…) or leave retrain out",
    ),
    "a roll-out without labels": (
        lambda: pipeline(rollout=Rollout()),
        "pipeline fraud: rollout needs labels; declare labels=Labels(…) or leave rollout out",
    ),
    "blocks that are none": (
        lambda: pipeline(blocks="1d"),
        "pipeline fraud: blocks is a Blocks(…), not '1d'",
    ),
    "a retrain that is none": (
        lambda: pipeline(labels=labels(), retrain="train:train"),
        "pipeline fraud: retrain is a Retrain(…), not 'train:train'",
    ),
    "blocks of no duration": (
        lambda: Blocks(every="day"),
        "blocks: every: 'day' is not a duration; write a whole number and ms, s, m, h or d, like \"15m\"",
    ),
    "blocks of no events": (lambda: Blocks(every=0), "blocks: every is a whole number from 1 on, not 0"),
    "blocks of half an event": (lambda: Blocks(every=0.5), "blocks: every is a whole number from 1 on, not 0.5"),
    "a drift signal that is none": (
        lambda: pipeline(labels=labels(), retrain=Retrain(on=["los"])),
        "retrain: on: no signal is called 'los'; did you mean 'loss'?",
    ),
    "a drift signal of no feature": (
        lambda: pipeline(labels=labels(), retrain=Retrain(on=["feature.price"])),
        "retrain: on: no signal is called 'feature.price'; there is score, label, loss, errors, feature.<name> and "
        "null.<name>",
    ),
    "drift signals that are no list": (
        lambda: Retrain(on="loss"),
        'retrain: on is a list of signals: on=["loss", "feature.*"], not \'loss\'',
    ),
    "no labels to retrain with": (
        lambda: Retrain(min_labels=0),
        "retrain: min_labels is a whole number from 1 on, not 0",
    ),
    "a budget that is no number": (
        lambda: Retrain(budget=True),
        "retrain: budget is a whole number from 1 on, not True",
    ),
    "a seed that is none": (lambda: Retrain(seed=-1), "retrain: seed is a whole number from 0 on, not -1"),
    "a cooldown that is no duration": (
        lambda: Retrain(cooldown="2w"),
        "retrain: cooldown: '2w' is not a duration; write a whole number and ms, s, m, h or d, like \"15m\"",
    ),
    "an age that the cooldown outlasts": (
        lambda: Retrain(cooldown="14d", max_age="10d"),
        "retrain: max_age='10d' is shorter than cooldown='14d', which would hold it back; lengthen max_age or shorten "
        "the cooldown",
    ),
    "a schedule that the cooldown outlasts": (
        lambda: Retrain(every="1d"),
        "retrain: every='1d' is shorter than cooldown='7d', which would hold it back; lengthen every or shorten the "
        "cooldown",
    ),
    "a schedule shorter than a block": (
        lambda: pipeline(labels=labels(), retrain=Retrain(cooldown=None, every="1h")),
        "retrain: every='1h' is shorter than a block (1d), and a block brings at most one retrain event; lengthen it "
        "or shorten the blocks",
    ),
    "a roll-out without rows": (lambda: Rollout(0), "rollout: rows is a whole number from 1 on, not 0"),
    "a roll-out that gives up before it looks": (
        lambda: Rollout(500, most_rows=400),
        "rollout: most_rows=400 is less than rows=500; make it at least as many",
    ),
    "a margin below nothing": (
        lambda: Rollout(margin=-0.1),
        "rollout: margin is a number from 0 to 1, not -0.1",
    ),
    "a certainty that there is not": (
        lambda: Rollout(confidence=1.0),
        "rollout: confidence is a number above 0.5 and below 1, not 1.0",
    ),
    "a share that is no number": (
        lambda: Rollout(max_unscored=float("nan")),
        "rollout: max_unscored is a number from 0 to 1, not nan",
    ),
    "a latency without a unit": (
        lambda: Rollout(latency="20"),
        "rollout: latency: '20' is not a duration; write a whole number and ms, s, m, h or d, like \"15m\"",
    ),
    "a first that may be kept": (
        lambda: Rollout(keep_first="yes"),
        "rollout: keep_first is True or False, not 'yes'",
    ),
    "a watch that is no list": (
        lambda: pipeline(drift=Watch("score", "loss")),
        "drift is a list: drift=[Watch('score', 'loss', …)]",
    ),
    "watches that are texts": (lambda: pipeline(drift=["score"]), "drift: 'score' is not a Watch(…)"),
    "watches that are a number": (lambda: pipeline(drift=3), "drift is a list of Watch(…), not 3"),
    "a watch of a feature that is none": (
        lambda: pipeline(drift=[Watch("feature.amout")]),
        "drift: watch feature.amout: signals='feature.amout': did you mean 'feature.amount'?",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_impossible_declaration_says_what_and_how_to_mend_it(case: str) -> None:
    declare, message = CASES[case]
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert str(caught.value) == message
    assert caught.value.exit_code == 2
