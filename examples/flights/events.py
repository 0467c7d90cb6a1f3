"""The three streams of the flights example, all keyed by `origin`. Times: ms, of local time as if UTC."""

from __future__ import annotations

from streams import Event

ORIGINS = ("EWR", "JFK", "LGA")
CARRIERS = "9E AA AS B6 DL EV F9 FL HA MQ OO UA US VX WN YV".split()  # noqa: SIM905
DESTINATIONS = """
    ABQ ACK ALB ANC ATL AUS AVL BDL BGR BHM BNA BOS BQN BTV BUF BUR BWI BZN CAE CAK CHO CHS CLE CLT CMH
    CRW CVG DAY DCA DEN DFW DSM DTW EGE EYW FLL GRR GSO GSP HDN HNL HOU IAD IAH ILM IND JAC JAX LAS LAX
    LEX LGA LGB MCI MCO MDW MEM MHT MIA MKE MSN MSP MSY MTJ MVY MYR OAK OKC OMA ORD ORF PBI PDX PHL PHX
    PIT PSE PSP PVD PWM RDU RIC ROC RSW SAN SAT SAV SBN SDF SEA SFO SJC SJU SLC SMF SNA SRQ STL STT SYR
    TPA TUL TVC TYS XNA
""".split()  # noqa: SIM905


class Request(Event):
    """Two hours before a scheduled departure somebody asks: will it arrive late?"""

    id: str
    origin: str
    carrier: str
    dest: str
    tailnum: str | None
    hour: int  # of the scheduled departure
    weekday: int  # of the scheduled departure: 1 = Monday
    distance: float  # miles
    temp: float | None  # weather at the origin in the last hour that was over: °F
    humid: float | None  # %
    wind_speed: float | None  # mph
    precip: float | None  # inches
    pressure: float | None  # mbar
    visib: float | None  # miles
    time: int


class Departure(Event):
    """A flight has left, `dep_delay` minutes after its schedule. Cancelled flights never do."""

    id: str
    origin: str
    carrier: str
    dest: str
    tailnum: str | None
    dep_delay: float
    time: int


class Arrival(Event):
    """A flight has arrived, `arr_delay` minutes after its schedule. Cancelled or diverted ones never do."""

    id: str
    origin: str
    carrier: str
    dest: str
    tailnum: str | None
    arr_delay: float
    time: int
