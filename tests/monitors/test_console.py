"""The live view, on a terminal and without one."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from monitors.console import LiveView, View, curve, draw, plain

VIEW = View("Demo", "scoring", "14 Jul 2013", 0.5, 9312.4, 12, 0.113, 2.5, 0.7412, 180_000, history={"AUC": [0.7, 0.8]})


def test_the_panel_shows_the_numbers() -> None:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(draw(VIEW, "1:02", [("0:31", "model 1 is champion")]))
    text = captured.get()
    for shown in ("Demo", "scoring", "14 Jul 2013", "9,312", "113 ms", "2.5 s", "0.741", "180,000", "▁█", "model 1 is"):
        assert shown in text


def test_the_loop_is_shown_where_there_is_one() -> None:
    looping = replace(VIEW, loop="7 is a shadow", champion="6", drifts=1777, retrains=17, promotions=5)
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(draw(looping, "1:02", ()))
        console.print(draw(VIEW, "1:02", ()))
    with_loop, without = captured.get().split("1:02")[1:]
    for shown in ("7 is a shadow", "champion", "1,777", "17", "retrain events"):
        assert shown in with_loop
        assert shown not in without
    assert plain(looping).endswith("champion 6, 7 is a shadow")


def test_what_is_not_known_yet_is_a_dash() -> None:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(draw(View("Demo"), "0:00", ()))
    assert "–" in captured.get()


def test_without_a_terminal_notes_are_printed_at_once() -> None:
    out = io.StringIO()
    with LiveView(VIEW, Console(file=out)) as live:
        live.note("trained [on] 5 events")
        live.update()
    assert out.getvalue().strip().endswith("trained [on] 5 events")


def test_on_a_terminal_nothing_stays_behind_but_the_view_is_drawn() -> None:
    out = io.StringIO()
    with LiveView(VIEW, Console(file=out, force_terminal=True, width=100)) as live:
        live.note("a note")
        live.update()
    assert "a note" in out.getvalue()


def test_one_line_says_it_all() -> None:
    assert plain(VIEW).split("  ") == [
        "scoring",
        "14 Jul 2013",
        "50%",
        "180,000 predictions",
        "9,312 events/s",
        "lag 12",
        "p50 113 ms",
        "AUC 0.741",
    ]


def test_a_curve_goes_from_its_least_to_its_greatest() -> None:
    assert curve([1, 2, 3], 10) == "▁▅█"
    assert curve([5, 5], 10) == "▁▁"
    assert len(curve(list(range(100)), 20)) == 20
