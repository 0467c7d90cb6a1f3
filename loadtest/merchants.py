"""The payments example with some of its eight features kept by merchant, who is not in the topic's key: what a remote
group costs, and how far behind one is that is read.
"""

from __future__ import annotations

from examples.payments.pipeline import payments, user
from streams import Pipeline

GROUP = "merchant"


def _pipeline(name: str, *, exact: bool) -> Pipeline:
    merchant = payments.by(GROUP, exact=exact)
    return Pipeline(
        name,
        score=payments,
        features=[
            payments.field("amount"),
            user.since_last(),
            user.count("1h", "24h"),
            user.mean("amount", "1h", "24h"),
            merchant.count("1h"),
            merchant.mean("amount", "24h"),
        ],
        model=name,
    )


read = _pipeline("payments_read", exact=False)
exact = _pipeline("payments_exact", exact=True)
