"""Records that cannot be used, one in a hundred."""

from __future__ import annotations

from tests.faults.feed import Feed
from tests.faults.pipelines import records
from tests.faults.system import Grounds
from tests.faults.table import Row, scenario
from tests.integration.tape import Record

_GOOD = b'{"payment_id":"x","user_id":"u00001","merchant":"m","amount":%b,"ts":%d}'
_BAD = (
    b'{"payment_id":',
    b"[1,2]",
    b"",
    None,
    bytes(range(256)),
    b"[" * 10_000 + b"]" * 10_000,
    _GOOD % (b'"12"', 1_735_689_700_000),
    _GOOD % (b"NaN", 1_735_689_700_000),
    _GOOD % (b"1e999", 1_735_689_700_000),
    _GOOD % (b"1.0", 4_102_444_800_000),  # the year 2100
    _GOOD % (b"1.0", -1),
)
_LARGE = b'{"x":"' + b"y" * 2_000_000 + b'"}'


@scenario("poison", "1 % poison records", short=60_000, long=1_000_000)
def poison(grounds: Grounds, count: int) -> Row:
    feed = Feed("payments", _poisoned(records("payments", count)))
    row = Row("1 % poison records, one of 2 MB (records)", count)
    with grounds.system("payments", feed, 3000.0) as system:
        system.progress()
        system.finish(row, 300.0).judge(aborts=False)
        starts = [member.starts for member in system.fleet.members]
    if starts != [1] * len(starts) or system.fleet.exits:
        row.problems.append(f"workers were started {starts} times")
    row.notes.append(f"{len(feed.dead)} dead letters; workers were started {starts} times")
    return row


def _poisoned(good: list[Record]) -> list[Record]:
    """One after every ninety-nine, of each kind in turn; a large one in the middle."""
    mixed: list[Record] = []
    for i, record in enumerate(good):
        mixed.append(record)
        if i % 99 == 98:
            mixed.append(record._replace(value=_BAD[i // 99 % len(_BAD)], usable=False))
        if i == len(good) // 2:
            mixed.append(record._replace(value=_LARGE, usable=False))
    return mixed
