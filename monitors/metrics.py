"""Every metric of Weir in one table, and the object that counts them.

The table is the source of docs/metrics.md (`python -m monitors.metrics`) and of the dashboards. Counting goes
through plain dictionaries, and `prometheus_client` only renders them, so that a call costs well under a
microsecond and a histogram takes a whole batch of observations at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RECORDS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0)
# From a second to sixty days: how long the truth takes.
DELAYS = (
    1.0,
    10.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    10800.0,
    21600.0,
    43200.0,
    86400.0,
    *(86400.0 * d for d in (2, 7, 14, 30, 60)),
)
TRAININGS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0)


@dataclass(frozen=True)
class Row:
    """One metric. `labels` in the order of display; `buckets` are upper bounds, for histograms only."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str
    buckets: tuple[float, ...] = ()
    group: str = ""


def _group(group: str, *rows: Row) -> tuple[Row, ...]:
    return tuple(replace(row, group=group) for row in rows)


# fmt: off
METRICS: tuple[Row, ...] = (
    *_group("Records",
        Row("weir_events_total", "counter", ("source",), "records",
            "Records of a source topic that were worked off, dead letters too; those replayed are counted apart"),
        Row("weir_predictions_total", "counter", ("model", "version", "arm"), "records",
            "Scored predictions"),
        Row("weir_unscored_total", "counter", ("reason",), "records",
            "Predictions written without a score: no_model, failed (the model raised), non_finite or contract (a rule, "
            "or the bound of a remote group, withheld it)"),
        Row("weir_degraded_total", "counter", (), "records",
            "Predictions made from local state alone while the feature store was away, and marked so"),
        Row("weir_dead_letters_total", "counter", ("source", "stage", "reason"), "records",
            "Records that went to the dead-letter topic"),
        Row("weir_contract_violations_total", "counter", ("source", "field", "rule", "action"), "records",
            "Records that break a rule of the data contract, by what becomes of them: flagged, dead_letter or withheld "
            "(no score). Of the rules nulls and silence: stretches of 1,000 records with too many nulls, and silences; "
            "both are flagged. field: of the source, or a feature of its pipeline"),
        Row("weir_contract_null_ratio", "gauge", ("source", "field"), "1",
            "Share of nulls in the latest 1,000 records or more, for fields and features with a rule about it"),
        Row("weir_contract_silence_seconds", "gauge", ("source",), "seconds",
            "For how long no record has come while all that there is was read, for sources with a rule about it"),
        Row("weir_late_total", "counter", ("window",), "events",
            "Events too old for a window: its value is empty and they were not added to it"),
        Row("weir_round_records", "histogram", (), "records", "Records of one round of work", RECORDS),
    ),
    *_group("Time",
        Row("weir_stage_seconds", "histogram", ("stage",), "seconds",
            "Time of a round in decode, remote (reads of remote groups), features, inference, encode or produce; of a "
            "commit or checkpoint", SECONDS),
        Row("weir_latency_seconds", "histogram", (), "seconds",
            "From the poll that brought a record to the hand-over of its prediction to the producer", SECONDS),
    ),
    *_group("Kafka",
        Row(
            "weir_consumer_lag_records",
            "gauge",
            ("topic", "partition"),
            "records",
            "Records that are there and not worked off; absent while the end of the partition is not known",
        ),
        Row("weir_owned_partitions", "gauge", ("topic",), "partitions", "Partitions that this worker owns"),
        Row("weir_commits_total", "counter", ("result",), "commits", "Offset commits: ok or failed"),
        Row("weir_transactions_aborted_total", "counter", (), "transactions",
            "Transactions that were void; their events were read again"),
        Row("weir_rebalances_total", "counter", ("event",), "rebalances",
            "Rebalances: assigned, revoked or lost"),
        Row("weir_expired_records_total", "counter", ("source",), "records",
            "Records that Kafka deleted before they were read: the topic's retention is too short"),
        Row("weir_rebalance_seconds", "histogram", ("event",), "seconds",
            "Time in which a rebalance kept the worker from reading, the partitions that stay included", SECONDS),
        Row("weir_broker_errors_total", "counter", ("code",), "errors",
            "Errors that the Kafka client reported"),
        Row("weir_delivery_failures_total", "counter", ("topic",), "records",
            "Records that Kafka did not take; their offsets are not committed"),
        Row("weir_watermark_timestamp_seconds", "gauge", ("source", "partition"), "seconds",
            "Event time that the merge has reached in a source's partition"),
        Row("weir_merge_buffered_records", "gauge", ("source",), "records",
            "Records that wait in the merge for an older one of another source"),
    ),
    *_group("Remote groups",
        Row("weir_forwarded_total", "counter", ("group",), "records",
            "Events that were sent to a remote group's topic"),
        Row("weir_remote_lag_seconds", "histogram", ("group",), "seconds",
            "Event time of a scored event less the newest that its owner had in its state; below 0 = the owner was "
            "ahead", SECONDS),
        Row("weir_remote_age_seconds", "histogram", ("group",), "seconds",
            "For how long, when a scored event read a remote group, its owner's state had not been known to be whole",
            SECONDS),
        Row("weir_remote_unknown_total", "counter", ("group",), "records",
            "Scored events for which a remote group's state was not known: no owner has begun, it rebuilds, or Redis "
            "was away"),
        Row("weir_remote_stale_total", "counter", ("group", "action"), "records",
            "Scored events for which a remote group was older than its bound: mark or withhold"),
    ),
    *_group("Schemas",
        Row("weir_schema_fetches_total", "counter", ("result",), "schemas",
            "Schemas asked of the Schema Registry: ok, unknown, unusable (of another kind, or broken) or failed (no "
            "answer; decoding waits)"),
    ),
    *_group("Recovery",
        Row("weir_recovery_seconds", "histogram", (), "seconds",
            "Time to restore the state of a partition", SECONDS),
        Row("weir_replayed_records_total", "counter", ("source",), "records",
            "Records read again to restore feature state"),
        Row("weir_restored_records_total", "counter", ("entity",), "records",
            "Records that were worked into the features of an entity again: after a restart those since the last "
            "checkpoint; of features that are new, or were changed, those of their windows, of which others have none"),
    ),
    *_group("Features",
        Row("weir_compute_failures_total", "counter", ("feature",), "events",
            "Events on which a computed feature's function failed; its value is null"),
        Row("weir_cache_rows", "gauge", ("entity",), "rows", "Rows of feature state in memory"),
        Row("weir_cache_hits_total", "counter", ("entity",), "lookups", "Keys of a round found in memory"),
        Row("weir_cache_misses_total", "counter", ("entity",), "lookups",
            "Keys of a round asked of the store"),
        Row("weir_cache_evictions_total", "counter", ("entity",), "rows", "Clean rows dropped to make room"),
        Row("weir_cache_over_bound_rows", "gauge", ("entity",), "rows",
            "Rows taken in above the bound since the start, for those that were here were not yet written"),
        Row("weir_cache_waits_total", "counter", (), "waits",
            "Times that scoring waited for a checkpoint, so that new rows find room in the bound"),
        Row("weir_store_errors_total", "counter", ("operation",), "errors",
            "Failed operations of the feature store"),
        Row("weir_store_refusals_total", "counter", (), "refusals",
            "Loads and checkpoints that the store refused: another owner, another vector or no meta record"),
        Row("weir_checkpoints_total", "counter", ("result",), "checkpoints",
            "Checkpoints: written, refused or failed"),
        Row("weir_checkpoint_rows_total", "counter", (), "rows", "Feature rows written to the store"),
        Row("weir_checkpoint_bytes_total", "counter", (), "bytes",
            "Packed feature state written to the store"),
    ),
    *_group("Parity",
        Row("weir_parity_checked_total", "counter", ("feature",), "values",
            "Values of a sampled key that were computed again from its events alone"),
        Row("weir_parity_mismatches_total", "counter", ("feature",), "values",
            "Of these, values that were served otherwise; always 0 unless state was spoilt"),
    ),
    *_group("Online features",
        Row("weir_feature_requests_total", "counter", ("status",), "requests",
            "Requests to POST /features, by the HTTP status of the answer; 499: the client left"),
        Row("weir_feature_request_seconds", "histogram", (), "seconds", "Time of such a request", SECONDS),
        Row("weir_feature_entities_total", "counter", (), "entities", "Entities whose features were read"),
        Row("weir_feature_values_total", "counter", ("state",), "values",
            "Feature values read: present, missing, expired or rebuilding"),
    ),
    *_group("Models",
        Row("weir_model_info", "gauge", ("model", "version", "arm", "deployment"), "1",
            "1 for each model version that this worker serves"),
        Row("weir_model_switches_total", "counter", ("result",), "switches",
            "Deployments taken up: ok or refused"),
        Row("weir_scoring_failures_total", "counter", ("version",), "batches",
            "Batches that a model failed on"),
        Row("weir_nonfinite_scores_total", "counter", ("version",), "records",
            "Scores that were NaN or infinite"),
    ),
    *_group("Monitor",
        Row("weir_monitor_predictions_total", "counter", ("result",), "records",
            "Predictions that the monitor read: new or duplicate (a source record seen before)"),
        Row("weir_monitor_labels_total", "counter", ("result",), "records",
            "Labels: matched, late (beyond `within`), duplicate, conflicting (a second one that says otherwise), "
            "unmatched (no prediction) or invalid"),
        Row("weir_monitor_missing_labels_total", "counter", (), "records",
            "Predictions whose label did not come within its time"),
        Row("weir_monitor_pending_records", "gauge", ("side",), "records",
            "Predictions or labels that wait for the other"),
        Row("weir_monitor_archived_total", "counter", (), "records", "Rows written to the archive"),
        Row("weir_monitor_lag_records", "gauge", ("topic",), "records",
            "Records of a topic that the monitor has not yet read, over all its partitions"),
        Row("weir_monitor_watermark_timestamp_seconds", "gauge", ("side",), "seconds",
            "Event time up to which predictions, or labels, have been read: the least of their partitions"),
    ),
    *_group("Live performance",
        Row("weir_live_auc", "gauge", ("version", "arm"), "1",
            "Area under the ROC curve of a version's latest labelled rows, at most 10,000 of them and none left out; "
            "absent while they are of one class. arm: the place that it had on the latest of them"),
        Row("weir_live_log_loss", "gauge", ("version", "arm"), "nats", "Mean log loss on the same rows"),
        Row("weir_live_accuracy_ratio", "gauge", ("version", "arm"), "1",
            "Share of the same rows on the right side of 0.5"),
        Row("weir_live_calibration_error", "gauge", ("version", "arm"), "1",
            "Expected calibration error on the same rows: how far scores lie from the share of positives, over ten "
            "bins of equal width"),
        Row("weir_live_calibration_bias", "gauge", ("version", "arm"), "1",
            "Mean score less the share of positives on the same rows: above 0 = too sure of positives"),
        Row("weir_live_rows", "gauge", ("version", "arm"), "rows", "How many rows these say it of"),
        Row("weir_live_log_loss_difference", "gauge", ("shadow", "served"), "nats",
            "Mean log loss of a shadow less that of the version that was served, on the same rows: the latest 10,000 "
            "that both scored; below 0 = the shadow is better"),
        Row("weir_live_log_loss_difference_error", "gauge", ("shadow", "served"), "nats",
            "Standard error of that difference"),
        Row("weir_live_paired_rows", "gauge", ("shadow", "served"), "rows", "How many rows that is said of"),
    ),
    *_group("Loop",
        Row("weir_label_delay_seconds", "histogram", (), "seconds",
            "Event time from a scored event to its label", DELAYS),
        Row("weir_label_coverage_ratio", "gauge", (), "1",
            "Of the predictions whose label came, or whose time for one ran out, in the latest block: the share that "
            "has one"),
        Row("weir_blocks_total", "counter", (), "blocks", "Blocks of event time that were closed"),
        Row("weir_block_late_records_total", "counter", (), "records",
            "Records that came when their block was closed, and count in the one that was open"),
        Row("weir_block_end_timestamp_seconds", "gauge", (), "seconds", "Event time at which the latest block ends"),
        Row("weir_drift_statistic", "gauge", ("signal", "detector"), "1",
            "What a detector said of a signal at the latest block; beyond the threshold, and confirmed, it is a drift"),
        Row("weir_drift_threshold", "gauge", ("signal", "detector"), "1", "Where a drift of this signal begins"),
        Row("weir_drift_events_total", "counter", ("signal", "detector"), "events", "Drift events"),
        Row("weir_retrain_events_total", "counter", ("reason",), "events",
            "Retrain events: no_champion, drift, max_age, schedule or manual"),
        Row("weir_trainer_state", "gauge", ("state",), "1",
            "1 for what the trainer does, 0 for the rest: idle, training, gating, shadow (a candidate is watched), "
            "guard (a new champion is watched) or failing (it tries again)"),
        Row("weir_training_seconds", "histogram", (), "seconds",
            "Time of a training, from the archive to the model's file", TRAININGS),
        Row("weir_trainings_total", "counter", ("result",), "trainings",
            "Retrain events that were worked off: registered, reused (its version was there already), rejected (the "
            "gate) or failed"),
        Row("weir_rollouts_total", "counter", ("decision",), "decisions",
            "Steps of a roll-out: shadow, promoted, rejected or rolled_back"),
    ),
    *_group("Process",
        Row("weir_build_info", "gauge", ("version", "python"), "1", "1, with the versions that run"),
        Row("weir_process_cpu_seconds_total", "counter", (), "seconds", "CPU time of the process"),
        Row("weir_process_resident_memory_bytes", "gauge", (), "bytes", "Resident memory of the process"),
        Row("weir_process_virtual_memory_bytes", "gauge", (), "bytes", "Virtual memory of the process"),
        Row("weir_process_start_time_seconds", "gauge", (), "seconds",
            "Start of the process since the epoch"),
        Row("weir_process_open_fds", "gauge", (), "files", "Open file descriptors"),
        Row("weir_process_max_fds", "gauge", (), "files", "The most file descriptors that may be open"),
    ),
)
# fmt: on
_FROM_THE_SYSTEM = "weir_process_"  # filled in by prometheus_client's process collector


class _Histogram:
    """Counts by bucket, and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, count: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def cumulative(self) -> list[tuple[str, float]]:
        total, out = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            out.append((bound, float(total)))
        return out


class Metrics(Collector):
    """Counts by the names and labels of `METRICS`; a name or label that the table lacks raises KeyError.

    Safe to call from any thread. Label values are turned into strings when rendered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = {row.name: row for row in METRICS if not row.name.startswith(_FROM_THE_SYSTEM)}
        self._numbers: dict[str, dict[tuple[Any, ...], float]] = {
            name: {} for name, row in self._rows.items() if row.kind != "histogram"
        }
        self._histograms: dict[str, dict[tuple[Any, ...], _Histogram]] = {
            name: {} for name, row in self._rows.items() if row.kind == "histogram"
        }
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(namespace="weir", registry=self._registry)

    def inc(self, name: str, amount: float = 1, **labels: Any) -> None:
        """Adds `amount` ≥ 0 to a counter."""
        key = self._key(name, labels)
        with self._lock:
            numbers = self._numbers[name]
            numbers[key] = numbers.get(key, 0) + amount

    def set(self, name: str, value: float, **labels: Any) -> None:
        """Sets a gauge."""
        key = self._key(name, labels)
        with self._lock:
            self._numbers[name][key] = value

    def observe(self, name: str, value: float, count: int = 1, **labels: Any) -> None:
        """Adds `count` observations of `value` to a histogram."""
        key = self._key(name, labels)
        with self._lock:
            self._histogram(name, key).add(value, count)

    def observe_many(self, name: str, values: Iterable[float], **labels: Any) -> None:
        """Adds one observation for each of `values`."""
        key = self._key(name, labels)
        with self._lock:
            histogram = self._histogram(name, key)
            for value in values:
                histogram.add(value, 1)

    def observe_array(self, name: str, values: np.ndarray, **labels: Any) -> None:
        """Adds one observation for each of `values`, float64 [n]: what `observe_many` does, for thousands at once."""
        key = self._key(name, labels)
        counts = np.bincount(np.searchsorted(self._rows[name].buckets, values)).tolist()
        total = float(values.sum())
        with self._lock:
            histogram = self._histogram(name, key)
            for place, count in enumerate(counts):
                histogram.counts[place] += count
            histogram.sum += total

    def drop(self, name: str, **labels: Any) -> None:
        """Forgets the series that carry all of `labels`: those of a partition that has gone, say."""
        names = self._rows[name].labels
        if not labels.keys() <= set(names):
            raise KeyError(f"{name} has no labels {sorted(labels.keys() - set(names))}")
        wanted = [(names.index(label), value) for label, value in labels.items()]
        with self._lock:
            series: dict[tuple[Any, ...], Any] = self._numbers.get(name) or self._histograms.get(name) or {}
            for key in [k for k in series if all(k[i] == value for i, value in wanted)]:
                del series[key]

    def value(self, name: str, **labels: Any) -> float:
        """What a counter or gauge stands at (0 if never touched); of a histogram, how many were observed."""
        key = self._key(name, labels)
        with self._lock:
            if name in self._numbers:
                return self._numbers[name].get(key, 0)
            found = self._histograms[name].get(key)
            return sum(found.counts) if found else 0

    def total(self, name: str) -> float:
        """The sum of a counter over all its labels."""
        with self._lock:
            return sum(self._numbers[name].values())

    def render(self) -> tuple[bytes, str]:
        """The page that Prometheus scrapes, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            return iter([self._family(row) for row in self._rows.values()])

    def _histogram(self, name: str, key: tuple[Any, ...]) -> _Histogram:
        histograms = self._histograms[name]
        found = histograms.get(key)
        if found is None:
            found = histograms[key] = _Histogram(self._rows[name].buckets)
        return found

    def _key(self, name: str, labels: dict[str, Any]) -> tuple[Any, ...]:
        names = self._rows[name].labels
        if len(labels) != len(names):
            raise KeyError(f"{name} has the labels {names}, not {tuple(labels)}")
        return tuple([labels[label] for label in names])

    def _family(self, row: Row) -> Metric:
        if row.kind == "histogram":
            histogram = HistogramMetricFamily(row.name, row.meaning, labels=row.labels)
            for key, value in self._histograms[row.name].items():
                histogram.add_metric(_text(key), buckets=value.cumulative(), sum_value=value.sum)
            return histogram
        family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
        found = family(row.name, row.meaning, labels=row.labels)
        for key, number in self._numbers[row.name].items():
            found.add_metric(_text(key), number)
        return found


def _text(key: Sequence[Any]) -> list[str]:
    return ["" if value is None else str(value) for value in key]


def document() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Served at `/metrics` by every worker, monitor, trainer and feature server."
        + " Rendered from the table in `monitors/metrics.py` by `python -m monitors.metrics`; do not edit.",
    ]
    for group in dict.fromkeys(row.group for row in METRICS):
        lines += ["", f"## {group}", "", "| name | type | labels | unit | meaning |", "|---|---|---|---|---|"]
        for row in METRICS:
            if row.group == group:
                labels = ", ".join(f"`{label}`" for label in row.labels)
                lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.unit} | {row.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "metrics.md").write_text(document(), encoding="utf-8")
