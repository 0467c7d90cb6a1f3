"""The built-in model: a small network whose normalisation and category tables lie inside its ONNX graph.

The same data, seed and machine give the same file, byte for byte. torch is imported by `train_mlp` alone, so
that a Retrain function that uses another library needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.dataset import Dataset
from models.errors import TrainingFailed
from models.files import write_atomically
from models.metrics import auc, log_loss
from models.network import Inputs, Layer, Network, to_onnx

if TYPE_CHECKING:
    import torch

VALIDATION_SHARE, VALIDATION_ROWS = 0.15, 8_000
"""Of the latest rows, which only decide when to stop: a share, and how many at most. What is newest teaches most of
what comes next: more than it takes to tell two epochs apart is not to be kept from training."""
LEAST_ROWS = 100
THREADS = 1
"""With more, sums would be cut elsewhere on a machine with other cores; at this size more do not help."""


@dataclass(frozen=True)
class Trained:
    """A trained model: its ONNX file, the seed, and what it reached. What a Retrain function returns.

    metrics: of the built-in trainer {auc, log_loss (both on the validation rows), rows, validation_rows,
    epochs, positive_share}.
    """

    path: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """How far training is: epoch `number` of at most `of`, with its log losses."""

    number: int
    of: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Recipe:
    """How the network learns.

    hidden: widths of the hidden layers; patience: epochs without a better validation loss before it stops;
    batch: rows a step, and a hundredth of the rows at most;
    weight_decay: decoupled (AdamW), ten times as strong on the category tables;
    clip_quantile: numbers are cut to this quantile of the training rows and to 1 − it, so that a season never
    seen does not leave the range that was.
    """

    hidden: Sequence[int] = (64, 32)
    epochs: int = 8
    patience: int = 4
    batch: int = 1024
    dropout: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.5
    clip_quantile: float = 0.02


def train_mlp(
    dataset: Dataset,
    out: Path,
    *,
    seed: int = 7,
    recipe: Recipe = Recipe(),
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Trains a binary classifier on labels 0 and 1 and writes it to `out`.

    The latest rows are held out; the epoch that is best on them is kept.
    Raises TrainingFailed.
    """
    fit, validation = _split(dataset)
    inputs = Inputs.fit(dataset.matrix[fit], dataset.names, dataset.sizes, recipe.clip_quantile)
    with _deterministic(seed):
        best = _train(dataset, inputs, fit, validation, recipe, on_epoch)
    _, codes = inputs.apply(dataset.matrix[fit])
    network = Network(inputs, best.layers, best.tables).with_mean_for_unseen(codes)
    write_atomically(out, to_onnx(network))
    metrics = {
        "auc": auc(best.scores, dataset.labels[validation]),
        "log_loss": best.loss,
        "rows": len(fit),
        "validation_rows": len(validation),
        "epochs": best.epoch,
        "positive_share": float(dataset.labels.mean()),
    }
    return Trained(out, metrics, seed)


def _split(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers int64 to fit on and to validate on: the earlier and the latest."""
    if len(dataset) < LEAST_ROWS:
        raise TrainingFailed(
            f"{len(dataset)} labelled rows are too few to train on; collect at least {LEAST_ROWS}"
        )
    wrong = dataset.labels[(dataset.labels != 0) & (dataset.labels != 1)]
    if len(wrong):
        raise TrainingFailed(
            f"the built-in trainer learns labels 0 and 1, not {wrong[0]:g}; map them with Labels(value=…)"
            " or train with Retrain(…)"
        )
    order = np.argsort(dataset.times, kind="stable")
    cut = len(dataset) - min(round(len(dataset) * VALIDATION_SHARE), VALIDATION_ROWS)
    seen = np.unique(dataset.labels[order[:cut]])
    if len(seen) < 2:
        raise TrainingFailed(
            f"every label of the {cut} training rows is {seen[0]:g}; train on a time with both classes"
        )
    return order[:cut], order[cut:]


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    import torch

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


@dataclass(frozen=True)
class _Best:
    """The arrays of the best epoch, its number, its validation loss and scores."""

    layers: tuple[Layer, ...]
    tables: tuple[np.ndarray, ...]
    epoch: int
    loss: float
    scores: np.ndarray


def _train(
    dataset: Dataset,
    inputs: Inputs,
    fit: np.ndarray,
    validation: np.ndarray,
    recipe: Recipe,
    on_epoch: Callable[[Epoch], None] | None,
) -> _Best:
    import torch
    from torch.nn import functional

    numbers, codes = (torch.from_numpy(part) for part in inputs.apply(dataset.matrix))
    labels = torch.from_numpy(dataset.labels.astype(np.float32))
    tables = [torch.nn.Embedding(c.size, c.width) for c in inputs.categories]
    for table in tables:
        torch.nn.init.normal_(table.weight, 0.0, 0.1)
    widths = [numbers.shape[1] + sum(c.width for c in inputs.categories), *recipe.hidden, 1]
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]

    def logits(rows: torch.Tensor, training: bool) -> torch.Tensor:
        x = torch.cat([numbers[rows], *(table(codes[rows, j]) for j, table in enumerate(tables))], dim=1)
        for layer in layers[:-1]:
            x = functional.dropout(functional.relu(layer(x)), recipe.dropout, training)
        result: torch.Tensor = layers[-1](x)[:, 0]
        return result

    batch = min(recipe.batch, max(32, len(fit) // 100))
    groups = [{"params": [p for x in layers for p in x.parameters()], "weight_decay": recipe.weight_decay}]
    if tables:
        groups.append({"params": [t.weight for t in tables], "weight_decay": 10 * recipe.weight_decay})
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    steps = recipe.epochs * math.ceil(len(fit) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows_fit, rows_validation = torch.from_numpy(fit), torch.from_numpy(validation)
    best: _Best | None = None
    for number in range(1, recipe.epochs + 1):
        total = 0.0
        for rows in torch.split(rows_fit[torch.randperm(len(fit))], batch):
            loss = functional.binary_cross_entropy_with_logits(logits(rows, True), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        with torch.no_grad():
            scores = torch.sigmoid(logits(rows_validation, False)).numpy()
        reached = log_loss(scores, dataset.labels[validation])
        if not math.isfinite(total + reached):
            raise TrainingFailed(
                f"the loss is not finite in epoch {number}; lower the recipe's learning_rate"
            )
        if on_epoch:
            on_epoch(Epoch(number, recipe.epochs, total / len(fit), reached))
        if best is None or reached < best.loss:
            best = _Best(
                tuple(Layer(_copy(x.weight).T, _copy(x.bias)) for x in layers),
                tuple(_copy(table.weight) for table in tables),
                number,
                reached,
                scores,
            )
        elif number - best.epoch >= recipe.patience:
            break
    assert best is not None
    return best


def _copy(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().clone().numpy()
