"""The catalogue of a pipeline: in `weir features list`, and as a page in HTML and Markdown."""

from __future__ import annotations

import asyncio
import html.parser
import json
import re
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from features.redis_store import RedisStore
from models.registry import Registered
from models.rollout import Version
from streams.catalogue import catalogue, described
from streams.catalogue_page import render
from streams.cli import app
from streams.example_values import archived_examples
from streams.loading import load_pipeline
from streams.pipeline import Pipeline
from tests.redis_server import RedisServer
from tests.streams.stored import store_payments
from tests.streams.test_declared_aggregates import FEATURES, payments

PAYMENTS = str(Path(__file__).parents[2] / "examples/payments/pipeline.py")
RULES = """
from examples.payments.pipeline import payments
from streams import Pipeline, Rule

pipeline = Pipeline(
    "shop",
    score=payments,
    features=[payments.field("amount"), payments.by("user_id").mean("amount", "1h")],
    model="fraud",
    rules=[Rule("amount", le=100)],
)
"""


@pytest.fixture
def pipeline() -> Pipeline:
    return load_pipeline(PAYMENTS)


def registered(number: str, spec_hash: str, *aliases: str) -> Registered:
    version = Version("fraud", number, "file:///x", "0" * 64, spec_hash)
    return Registered(version, 1_760_000_000_000, aliases, {})


def test_the_list_says_of_each_feature_what_it_means(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(RULES)
    found = CliRunner().invoke(app, ["features", "list", str(path), "--json"])
    assert found.exit_code == 0, found.stderr
    amount, mean = json.loads(found.stdout)["features"]
    assert amount["meaning"] == "amount of the event of payments itself"
    assert amount["rules"] == ["must be at most 100 (flag)"]
    said = "mean of amount over the last hour of payments of the same user_id, before this one"
    assert mean["meaning"] == said
    assert (mean["kind"], mean["of"], mean["window"], mean["entity"]) == ("mean", "amount", "1h", "user_id")
    shown = CliRunner().invoke(app, ["features", "list", str(path)])
    assert said in shown.stdout


def test_every_kind_of_feature_is_in_the_catalogue_and_its_page() -> None:
    wide = Pipeline("wide", score=payments, features=FEATURES, model="wide")
    found = {feature.name: described(wide, feature) for feature in wide.spec.features}
    assert all(one["kind"] and one["meaning"] and one["type"] and one["freshness"] for one in found.values())
    hour = found["hour"]
    assert (hour["kind"], hour["of"], hour["window"], hour["missing"]) == ("calendar", "hour", "Europe/Berlin", "never")
    assert found["user_sum_amount_last5"]["window"] == "last5, within 30d"
    assert found["user_count_forever"]["window"] == "forever, within 30d"
    assert found["user_most_frequent_shop_24h"]["encoding"] == "a=0, b=1; others=2"
    filtered = next(one for name, one in found.items() if name.startswith("user_std_amount_1h_where"))
    assert filtered["window"] == "1h, where amount > 100 and shop in ['a', 'b']"
    for suffix in (".md", ".html"):
        page = render(catalogue(wide, [], {}), suffix)
        assert all(name in page for name in found)


def test_the_models_of_the_catalogue_are_those_trained_on_these_features(pipeline: Pipeline) -> None:
    versions = [registered("3", pipeline.spec.hash, "champion"), registered("2", "another"), registered("1", "another")]
    found = catalogue(pipeline, versions, {"amount": [1.5, 2.0]})
    assert [m["version"] for m in found["models"]] == ["3"]
    assert found["other_versions"] == 2
    assert [f["name"] for f in found["features"]] == list(pipeline.spec.names)
    assert all(f["models"] == ["3"] for f in found["features"])
    assert next(f for f in found["features"] if f["name"] == "amount")["examples"] == [1.5, 2.0]


def test_example_values_are_of_the_newest_file_of_the_archive_that_can_be_read(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    assert archived_examples(pipeline, tmp_path / "none") == {}
    amounts = [None, 1.0, 1.0, 2.0, None, 3.0, 4.0]
    pl.DataFrame({"feature.amount": amounts}).write_parquet(tmp_path / "a-0000000001-0000.parquet")
    (tmp_path / "a-0000000002-0000.parquet").write_bytes(b"PAR1 cut short")
    assert archived_examples(pipeline, tmp_path) == {"amount": [2.0, 3.0, 4.0]}


class Outline(html.parser.HTMLParser):
    """Tags that are open at the end, ids, and the text of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "section":
            self.ids.append(found["id"] or "")
        if tag == "a":
            self.links.append(found["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(pipeline: Pipeline, suffix: str, **examples: list[Any]) -> str:
    return render(catalogue(pipeline, [registered("3", pipeline.spec.hash, "champion")], examples), suffix)


def test_the_html_page_is_whole_and_has_a_part_for_every_feature(pipeline: Pipeline) -> None:
    outline = Outline()
    outline.feed(page(pipeline, ".html", merchant=["<script>alert(1)</script>"]))
    assert outline.open == []
    assert outline.ids == list(pipeline.spec.names)
    assert outline.links == [f"#{name}" for name in pipeline.spec.names]
    for feature in pipeline.spec.features:
        said = described(pipeline, feature)["meaning"]
        assert f"{said[0].upper()}{said[1:]}." in outline.text
    assert "version 3 (champion), of 2025-10-09" in outline.text
    assert "$" not in outline.text


def test_example_values_cannot_write_into_the_page(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    renamed = RULES.replace('payments.field("amount")', 'payments.field("amount", name="a")')
    path.write_text(renamed.replace('Rule("amount"', 'Rule("a"'))
    found = page(load_pipeline(str(path)), ".html", a=["<script>"])
    assert "<script>" not in found
    assert "&lt;script&gt;" in found


def test_the_markdown_page_says_the_same(pipeline: Pipeline) -> None:
    found = page(pipeline, ".md", amount=[1.5])
    assert re.findall(r"^### \d+\. `(\w+)`$", found, re.M) == list(pipeline.spec.names)
    assert "| examples | 1.5 |" in found
    assert "- version 3 (champion), of" in found


def test_the_command_writes_the_page_and_refuses_another_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_DATA_DIR", str(tmp_path / "data"))
    output = tmp_path / "features.html"
    done = CliRunner().invoke(app, ["features", "catalogue", PAYMENTS, "--output", str(output), "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["page"] == str(output)
    assert report["models"] == []
    assert "no registered version was trained on these features" in output.read_text()
    wrong = CliRunner().invoke(app, ["features", "catalogue", PAYMENTS, "--output", "features.pdf"])
    assert wrong.exit_code == 2
    assert "a page ends in .html or .md" in wrong.stderr


def keep(redis: RedisServer, at_ms: int) -> None:
    """One payment of ann, two of bob, and one of cid that is as ann's."""

    async def write() -> None:
        store = RedisStore(redis.url, "payments")
        await store_payments(store, ["ann", "bob", "bob", "cid"], [5.0, 1.0, 2.0, 5.0], at_ms)
        await store.close()

    asyncio.run(write())


def listed(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["features", "list", PAYMENTS, "--json", *arguments])
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def examples(found: dict[str, Any]) -> dict[str, list[Any]]:
    return {feature["name"]: sorted(feature["examples"]) for feature in found["features"]}


def test_example_values_are_of_the_entities_that_the_online_store_holds_now(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WEIR_REDIS", redis_server.url)
    archive = tmp_path / "data" / "archive" / "payments"
    archive.mkdir(parents=True)
    logged = {"feature.amount": [7.0, 8.0], "feature.user_id_count_1h": [99.0, 98.0]}
    pl.DataFrame(logged).write_parquet(archive / "a-0000000001-0000.parquet")
    keep(redis_server, time.time_ns() // 1_000_000 - 10_000)
    found = listed()
    assert re.fullmatch(r"of 3 entities as of \d{4}-.* UTC", found["online_examples"])
    values = examples(found)
    assert values["user_id_count_1h"] == [1.0, 2.0]
    assert values["user_id_sum_amount_24h"] == [3.0, 5.0]
    assert values["user_id_mean_amount_1h"] == [1.5, 5.0]
    assert values["amount"] == [7.0, 8.0], "which is known only when an event comes"
    shown = CliRunner().invoke(app, ["features", "list", PAYMENTS])
    assert "example values of the online store: of 3 entities" in shown.stderr
    assert "1.5" in shown.stdout
    output = tmp_path / "features.md"
    done = CliRunner().invoke(app, ["features", "catalogue", PAYMENTS, "--output", str(output), "--json"])
    again = examples(json.loads(done.stdout))
    assert len(again.pop("user_id_since_last")) == len(values.pop("user_id_since_last")) > 0, "and grows as time passes"
    assert again == values
    written = output.read_text()
    assert "Example values of the online store: of 3 entities as of " in written
    assert not any(user in written for user in ("ann", "bob", "cid"))


@pytest.mark.parametrize(
    ("stored_days_ago", "address", "said"),
    [
        (40, None, "no entity has a value now"),
        (None, None, "no entity has a value now"),
        (None, "redis://127.0.0.1:1", "not read: Redis at 127.0.0.1:1"),
        (None, "embedded", "not read: the embedded redis of .* does not run"),
    ],
)
def test_where_the_online_store_has_no_example_values_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
    redis_server: RedisServer,
    tmp_path: Path,
    stored_days_ago: int | None,
    address: str | None,
    said: str,
) -> None:
    monkeypatch.setenv("WEIR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WEIR_REDIS", address or redis_server.url)
    if stored_days_ago is not None:
        keep(redis_server, time.time_ns() // 1_000_000 - stored_days_ago * 86_400_000)
    found = listed()
    assert re.match(said, found["online_examples"])
    assert not any(examples(found).values())


def test_a_store_of_other_features_gives_no_example_values(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEIR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WEIR_REDIS", redis_server.url)

    async def write() -> None:
        store = RedisStore(redis_server.url, "payments")
        await store_payments(store, ["ann"], [5.0], time.time_ns() // 1_000_000, state_hash="0" * 16)
        await store.close()

    asyncio.run(write())
    found = listed()
    assert found["online_examples"].startswith("not read: partition ")
    assert "read with the pipeline that the worker runs" in found["online_examples"]
