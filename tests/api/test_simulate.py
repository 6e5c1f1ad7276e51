from __future__ import annotations

import pytest

import pipezoo as pz
from pipezoo.results.chrome_trace import read_trace


def test_a_schedule_alone_is_played_at_equal_costs_of_a_ranks_share():
    one, two = pz.simulate(pz.schedules["1f1b"](4, 8)), pz.simulate(pz.schedules.zbv(4, 8))

    assert (one.makespan, one.unit, one.peak_memory.tolist()) == (33.0, "unit", [4, 3, 2, 1])
    assert (two.makespan, two.lower_bound, two.span_bubble) == (25.5, 25.5, 0.0)
    assert two.critical_path.summary()["num_actions"] > 0


def test_a_timeline_is_one_line_and_printed_a_drawing():
    timeline = pz.simulate(pz.schedules["1f1b"](2, 4))

    assert repr(timeline) == "Timeline(predicted, 2 ranks, 16 spans, makespan 15 unit, bubble 20.0%)"
    assert str(timeline).startswith("rank 0 |0F0")
    assert isinstance(timeline, pz.Timeline)


@pytest.mark.parametrize("suffix", [".svg", ".html", ".json", ".npz", ".txt"])
def test_a_timeline_is_saved_as_its_file_is_named(suffix, tmp_path):
    timeline = pz.simulate(pz.schedules["1f1b"](2, 4))

    path = timeline.save(tmp_path / f"t{suffix}")

    begins = {".svg": b"<svg", ".html": b"<!doctype", ".json": b"{", ".npz": b"PK", ".txt": b"rank 0"}[suffix]
    assert path.read_bytes().lower().startswith(begins.lower())
    if suffix == ".json":
        assert read_trace(path)[0].makespan == 15


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(pz.ConfigError, match=r"x.pdf: must end in one of .svg, .png, .html, .json, .npz, .txt"):
        pz.simulate(pz.schedules["1f1b"](2, 4)).save(tmp_path / "x.pdf")


@pytest.mark.parametrize(
    ("schedule", "cost", "text"),
    [
        (pz.schedules.zbv(2, 4), pz.Cost(F=[1, 2], B=1), "cost: it has 2 stages, but schedule 'zbv' has 4"),
        (pz.schedules.zbv(2, 4), pz.Cost(F=1, B=2), "stages[0].I: is missing; schedule 'zbv' splits the backward"),
        ("zbv", None, "schedule=zbv: is of type str; valid: a Schedule"),
    ],
)
def test_costs_that_do_not_fit_are_config_errors(schedule, cost, text):
    with pytest.raises(pz.ConfigError) as refused:
        pz.simulate(schedule, cost)
    assert str(refused.value).startswith(text)


def test_a_schedule_draws_itself_in_a_notebook():
    svg = pz.schedules.zbv(4, 8)._repr_svg_()

    assert svg.startswith("<svg")
    assert ">zbv<" in svg
    assert "rank 3" in svg


def test_two_timelines_are_compared_on_one_axis():
    one, other = (pz.simulate(pz.schedules[name](2, 4)) for name in ("1f1b", "gpipe"))

    found = pz.compare(one, other)

    assert dict(found.differences["timeline"])["predicted: order, first differs on rank 0 at action 2"] == [
        "0B0 0F2 0B1",
        "0F2 0F3 0B0",
    ]
    assert "B predicted, 15 units" in str(found)
    assert found._repr_html_().count("<svg") == 1


def test_comparing_takes_two_of_one_unit():
    schedule = pz.schedules["1f1b"](2, 4)
    with pytest.raises(pz.ConfigError, match="comparing takes two or more"):
        pz.compare(pz.simulate(schedule))
    with pytest.raises(pz.ConfigError, match="seconds and units have no axis in common"):
        pz.compare(pz.simulate(schedule), pz.simulate(schedule, pz.Cost(F=1, B=2)))
