"""A pipeline as a YAML file: the same objects as in Python. The schema is in docs/pipelines.md.

Errors say the file and the path in it: "fraud.yaml: features[3].mean.amount: …".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from features.spec import Hashed
from monitors.rules import Rule, RuleError
from monitors.watch import Watch, WatchError
from streams.declared import AnyDeclared, Declared, compute, ratio
from streams.declared_loop import Blocks, Retrain, Rollout
from streams.entity import Entity
from streams.errors import DeclarationError, UsageError, WeirError, did_you_mean
from streams.event import Event, make_event
from streams.pipeline import Labels, Pipeline
from streams.source import Source

_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
_EVENTS = ("count", "rate", "decayed_count")
_FIELDS = ("sum", "mean", "variance", "std", "min", "max", "first", "streak", "distinct", "decayed_mean")
_REMOTE = ("exact", "fresh", "on_stale")
_OPS = (*_EVENTS, *_FIELDS, "quantile", "most_frequent", "lag", "last", "since_last")
_ENCODINGS = ("values", "buckets", "frequencies")
_LOOP = ("blocks", "drift", "retrain", "rollout")
Resolve = Callable[[str], Callable[..., Any]]


def load_yaml(path: Path, resolve: Resolve) -> Pipeline:
    """The pipeline in `path`; `resolve` finds the function that "module:function" names."""
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader))
        raw = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: {getattr(error, 'problem', None) or 'not a YAML file'}") from error
    try:
        return _pipeline(raw, resolve)
    except DeclarationError as error:
        raise DeclarationError(f"{path}: {error}") from error


def _pipeline(raw: Any, resolve: Resolve) -> Pipeline:
    required = ("pipeline", "model", "sources", "score", "features")
    top = _mapping("", raw, required, ("learn", "labels", *_LOOP, "missing", "output", "rules"))
    sources = {
        topic: _source(f"sources.{topic}", topic, value)
        for topic, value in _mapping("sources", top["sources"], None).items()
    }
    lead = _one_of("score", top["score"], sources)
    learn = [_one_of(f"learn[{i}]", topic, sources) for i, topic in enumerate(_list("learn", top.get("learn", [])))]
    features: list[AnyDeclared | list[Declared]] = [
        _feature(f"features[{i}]", item, lead, sources, resolve)
        for i, item in enumerate(_list("features", top["features"]))
    ]
    return Pipeline(
        _text("pipeline", top["pipeline"]),
        score=lead,
        features=features,
        model=_text("model", top["model"]),
        learn=learn,
        labels=_labels(top["labels"], sources, resolve) if "labels" in top else None,
        **{name: _loop(name, top[name]) for name in _LOOP if name in top},
        missing=top.get("missing", "nan"),
        output=_text("output", top["output"]) if "output" in top else None,
        rules=_rules("rules", top["rules"]) if "rules" in top else (),
    )


def _source(path: str, topic: str, raw: Any) -> Source:
    found = _mapping(path, raw, ("event", "key", "time"), ("id", "partitioner", "max_skew", "codec", "rules"))
    others = ("event", "rules")
    options: dict[str, Any] = {n: _text(f"{path}.{n}", value) for n, value in found.items() if n not in others}
    if "rules" in found:
        options["rules"] = _rules(f"{path}.rules", found["rules"])
    event = _event(f"{path}.event", topic, found["event"])
    with _at(path):
        return Source(topic, event, **options)


def _rules(path: str, raw: Any) -> list[Rule]:
    """Each a mapping of Rule's arguments."""
    known = [field.name for field in fields(Rule) if field.name != "of"]
    found = []
    for place, item in enumerate(_list(path, raw)):
        here = f"{path}[{place}]"
        options = dict(_mapping(here, item, ("of",), known))
        try:
            found.append(Rule(options.pop("of"), **options))
        except RuleError as error:
            raise DeclarationError(f"{here}: {error}") from error
    return found


def _event(path: str, topic: str, raw: Any) -> type[Event]:
    members: dict[str, Any] = {}
    for name, kind in _mapping(path, raw, None).items():
        text = _text(f"{path}.{name}", kind)
        plain = text.removesuffix("None").rstrip(" |") if text.endswith("| None") else text
        found = _TYPES.get(plain)
        if found is None:
            raise DeclarationError(
                f"{path}.{name}: {text!r} is not a type; write int, float, bool or str, with | None where null may come"
            )
        if not name.isidentifier():
            raise DeclarationError(f"{path}: {name!r} is not a field's name; use letters, digits and _")
        members[name] = found if plain == text else (found | None, None)
    return make_event("".join(part for part in topic.title() if part.isalnum()) or "Event", members)


def _feature(
    path: str, raw: Any, lead: Source, sources: dict[str, Source], resolve: Resolve
) -> AnyDeclared | list[Declared]:
    kinds = ("field", "category", "calendar", "compute", "ratio", "by")
    kind = next((kind for kind in kinds if isinstance(raw, dict) and kind in raw), None)
    if kind == "by":
        return _aggregates(path, raw, lead, sources)
    with _at(path):
        if kind == "field":
            found = _texts(path, raw, ("field",), ("name",))
            return lead.field(found["field"], name=found.get("name"))
        if kind == "calendar":
            found = _texts(path, raw, ("calendar",), ("zone", "name"))
            return lead.calendar(found["calendar"], found.get("zone", "UTC"), name=found.get("name"))
        if kind == "compute":
            found = _mapping(path, raw, ("compute", "function"), ("dtype", "uses"))
            named = {key: _text(f"{path}.{key}", value) for key, value in found.items() if key != "uses"}
            function = _resolve(f"{path}.function", named["function"], resolve)
            used = _uses(f"{path}.uses", found.get("uses", []), lead, sources)
            return compute(named["compute"], function, named.get("dtype", "float32"), uses=used)
        if kind == "ratio":
            found = _mapping(path, raw, ("ratio", "of"))
            used = _uses(f"{path}.of", found["of"], lead, sources)
            if len(used) != 2:
                raise DeclarationError(f"{path}.of: a ratio is of two aggregates of one window each, not {len(used)}")
            return ratio(_text(f"{path}.ratio", found["ratio"]), *used)
        if kind == "category":
            return _category(path, raw, lead)
    raise DeclarationError(f"{path}: a feature begins with one of {', '.join(kinds)}")


def _category(path: str, raw: Any, lead: Source) -> Declared:
    found = _mapping(path, raw, ("category",), (*_ENCODINGS, "name"))
    encoding = _encoding(path, found)
    field = _text(f"{path}.category", found["category"])
    name = _text(f"{path}.name", found["name"]) if "name" in found else None
    return lead.category(field, encoding, name=name)


def _encoding(path: str, found: dict[str, Any]) -> Any:
    """What stands beside a category: one of values: [..], buckets: n, frequencies: {text: share}."""
    if sum(name in found for name in _ENCODINGS) != 1:
        raise DeclarationError(f"{path}: give one of values: [..], buckets: n or frequencies: {{text: share}}")
    if "buckets" in found:
        return Hashed(found["buckets"])
    if "frequencies" in found:
        return _mapping(f"{path}.frequencies", found["frequencies"], None)
    return [_text(f"{path}.values[{i}]", v) for i, v in enumerate(_list(f"{path}.values", found["values"]))]


def _uses(path: str, raw: Any, lead: Source, sources: dict[str, Source]) -> list[Declared]:
    """The aggregates of a list of `by` blocks."""
    return [
        used for i, item in enumerate(_list(path, raw)) for used in _aggregates(f"{path}[{i}]", item, lead, sources)
    ]


def _aggregates(path: str, raw: Any, lead: Source, sources: dict[str, Source]) -> list[Declared]:
    found = _mapping(path, raw, ("by",), ("source", "name", "where", "within", *_REMOTE, *_OPS))
    source = _one_of(f"{path}.source", found["source"], sources) if "source" in found else lead
    name = _text(f"{path}.name", found["name"]) if "name" in found else None
    with _at(f"{path}.by"):
        remote = {option: found[option] for option in _REMOTE if option in found}
        entity = source.by(*_text_list(f"{path}.by", found["by"]), name=name, **remote)
    where = {"where": _text(f"{path}.where", found["where"])} if "where" in found else {}
    within = {"within": _text(f"{path}.within", found["within"])} if "within" in found else {}
    features: list[Declared] = []
    for op, value in found.items():
        here = f"{path}.{op}"
        if op in _EVENTS:
            with _at(here):
                given = where if op == "rate" else where | within
                features += getattr(entity, op)(*_text_list(here, value), **given)
        elif op == "since_last":
            with _at(here):
                features.append(entity.since_last(within=_text(here, value), **where))
        elif op in _OPS:
            for field, asked in _mapping(here, value, None).items():
                with _at(f"{here}.{field}"):
                    features += _of_field(f"{here}.{field}", entity, op, field, asked, where, within)
    if not features:
        raise DeclarationError(f"{path}: name what to keep: {', '.join(_OPS)}")
    return features


def _of_field(
    path: str, entity: Entity, op: str, field: str, asked: Any, where: dict[str, str], within: dict[str, str]
) -> list[Declared]:
    """The aggregates `op` of one field: of each window asked, or as `op` wants them."""
    if op == "last":
        return [entity.last(field, within=_text(path, asked), **where)]
    if op == "lag":
        return [entity.lag(field, n, **where, **within) for n in (asked if isinstance(asked, list) else [asked])]
    if op == "quantile":
        found = _mapping(path, asked, ("q", "windows"))
        windows = _text_list(f"{path}.windows", found["windows"])
        qs = found["q"] if isinstance(found["q"], list) else [found["q"]]
        return [made for q in qs for made in entity.quantile(field, q, *windows, **where, **within)]
    if op == "most_frequent" and isinstance(asked, dict):
        found = _mapping(path, asked, ("windows",), ("values", "buckets"))
        windows = _text_list(f"{path}.windows", found["windows"])
        return entity.most_frequent(field, *windows, values=_encoding(path, found), **where, **within)
    made: list[Declared] = getattr(entity, op)(field, *_text_list(path, asked), **where, **within)
    return made


def _labels(raw: Any, sources: dict[str, Source], resolve: Resolve) -> Labels:
    found = _mapping("labels", raw, ("topic", "id", "value"), ("event", "within", "time", "key", "codec"))
    texts: dict[str, Any] = {
        name: _text(f"labels.{name}", value) for name, value in found.items() if name != "event"
    }
    topic, value = texts.pop("topic"), texts.pop("value")
    if topic in sources:
        texts.setdefault("codec", sources[topic].codec)
    if "event" in found:
        event = _event("labels.event", topic, found["event"])
    elif topic in sources:
        event = sources[topic].event
    else:
        raise DeclarationError(f"labels: {topic} is none of the sources; describe its event: labels.event")
    truth = _resolve("labels.value", value, resolve) if ":" in value else value
    return Labels(topic, event, value=truth, **texts)


def _loop(name: str, raw: Any) -> Any:
    """`blocks`, `retrain` and `rollout`: a mapping of their arguments; `retrain` may be "module:function" alone.

    `drift`: a list of such mappings, each with its `signals`.
    """
    if name == "drift":
        return [_watch(f"drift[{i}]", item) for i, item in enumerate(_list(name, raw))]
    type_ = {"blocks": Blocks, "retrain": Retrain, "rollout": Rollout}[name]
    if name == "retrain" and isinstance(raw, str):
        return Retrain(raw)
    known = [field.name for field in fields(type_)]
    if isinstance(raw, dict) and "on" in known:  # to YAML 1.1 the word on is true
        raw = {"on" if key is True else key: value for key, value in raw.items()}
    return type_(**_mapping(name, raw, (), known))


def _watch(path: str, raw: Any) -> Watch:
    found = dict(_mapping(path, raw, None))
    if "signals" not in found:
        raise DeclarationError(f"{path}: signals is missing")
    signals = _text_list(f"{path}.signals", found.pop("signals"))
    try:
        return Watch(*signals, **found)
    except WatchError as error:
        raise DeclarationError(f"{path}: {error}") from error


def _resolve(path: str, where: str, resolve: Resolve) -> Callable[..., Any]:
    try:
        return resolve(where)
    except WeirError as error:
        raise DeclarationError(f"{path}: {error}") from error


def _mapping(path: str, raw: Any, required: Collection[str] | None, optional: Collection[str] = ()) -> dict[str, Any]:
    """`raw` as a mapping with text keys; `required` None = any keys."""
    where = f"{path}: " if path else ""
    if not isinstance(raw, dict) or not raw:
        raise DeclarationError(f"{where}write a mapping (name: value)")
    for key in raw:
        if not isinstance(key, str):
            raise DeclarationError(f"{where}{key!r} is not a text; write it in quotes")
        if required is not None and key not in required and key not in optional:
            known = (*required, *optional)
            raise DeclarationError(
                f"{where}unknown {key!r}{did_you_mean(key, known) or '; known: ' + ', '.join(known)}"
            )
    for key in required or ():
        if key not in raw:
            raise DeclarationError(f"{where}{key} is missing")
    return raw


def _texts(path: str, raw: Any, required: Collection[str], optional: Collection[str]) -> dict[str, str]:
    found = _mapping(path, raw, required, optional)
    return {key: _text(f"{path}.{key}", value) for key, value in found.items()}


def _list(path: str, raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise DeclarationError(f"{path}: write a list ([a, b])")
    return raw


def _text(path: str, raw: Any) -> str:
    if not isinstance(raw, str):
        raise DeclarationError(f"{path}: {raw!r} is not a text; write it in quotes")
    return raw


def _text_list(path: str, raw: Any) -> list[str]:
    if isinstance(raw, str):
        return [raw]
    return [_text(f"{path}[{i}]", item) for i, item in enumerate(_list(path, raw))]


def _one_of(path: str, raw: Any, sources: dict[str, Source]) -> Source:
    topic = _text(path, raw)
    if topic not in sources:
        known = did_you_mean(topic, sources) or f"; there is {', '.join(sources)}"
        raise DeclarationError(f"{path}: {topic!r} is not among the sources{known}")
    return sources[topic]


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Puts `path` before the message of a DeclarationError that does not have it yet."""
    try:
        yield
    except DeclarationError as error:
        if str(error).startswith(path):
            raise
        raise DeclarationError(f"{path}: {error}") from error


def _refuse_duplicates(node: yaml.Node | None) -> None:
    """A key that is written twice is a slip: YAML itself would keep the last silently."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is written twice", problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
            _refuse_duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item)
