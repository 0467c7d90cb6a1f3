"""Will this flight arrive more than 15 minutes late? Asked two hours before its scheduled departure.

`weir demo` replays a year of it; `python -m examples.flights.replay --broker …` feeds it on any Kafka.
"""

from __future__ import annotations

from typing import Any

from examples.flights.events import CARRIERS, DESTINATIONS, ORIGINS, Arrival, Departure, Request
from streams import Blocks, Labels, Pipeline, Retrain, Rollout, Source

requests = Source("flights.requests", Request, key="origin", id="id", time="time")
departures = Source("flights.departures", Departure, key="origin", id="id", time="time")
arrivals = Source("flights.arrivals", Arrival, key="origin", id="id", time="time")

airport = departures.by("origin")
airline = arrivals.by("origin", "carrier")
route = arrivals.by("origin", "dest")
aircraft = arrivals.by("origin", "tailnum")
demand = requests.by("origin", name="asked")

features: list[Any] = [
    requests.category("carrier", CARRIERS),
    requests.category("origin", ORIGINS),
    requests.category("dest", DESTINATIONS),
    [requests.field(name) for name in ("hour", "weekday", "distance")],
    [requests.field(name) for name in ("temp", "humid", "wind_speed", "precip", "pressure", "visib")],
    airport.count("1h", "3h", "24h"),
    airport.mean("dep_delay", "1h", "3h", "24h"),
    airline.mean("arr_delay", "3h", "24h", "7d"),
    route.mean("arr_delay", "3h", "24h", "7d"),
    aircraft.last("arr_delay"),
    aircraft.since_last(),
    airport.quantile("dep_delay", 0.5, "3h"),
    airport.quantile("dep_delay", 0.9, "3h"),
    airport.std("dep_delay", "3h"),
    demand.count("1h", "3h"),
]

pipeline = Pipeline(
    "flights",
    score=requests,
    learn=[departures, arrivals],
    features=features,
    model="flights-delay",
    labels=Labels("flights.arrivals", Arrival, id="id", time="time", within="3d", value=lambda c: c["arr_delay"] > 15),
    blocks=Blocks(every="1d"),
    retrain=Retrain(min_labels=20_000, cooldown="28d", max_age="35d"),
    rollout=Rollout(rows=2_000, guard_rows=5_000, margin=0.02, confidence=0.8, keep_first=True),
)
