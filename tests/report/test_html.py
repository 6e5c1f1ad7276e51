from __future__ import annotations

import base64
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipezoo.errors import ConfigError
from pipezoo.report.html import packed, run_page, write_report
from pipezoo.results.run import Run, flat, read_run
from tests.support.run_folders import run_folder
from tests.support.timelines import timeline

KINDS = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32}


def embedded(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def unpack(column: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(column["data"]), KINDS[column["type"]])


def test_the_page_says_what_ran_how_it_went_and_how_to_repeat_it(tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path / "a")).read_text()
    for text in (
        "<h1>multi_mlp, 1f1b, 4 stages on 4 ranks, 8 microbatches</h1>",
        "<b>verified exact</b> bit for bit what one device computes",
        "<dt>bubble, predicted</dt><dd>27.3 %",
        "<dt>prediction error</dt><dd>-12.5 %",
        "Derived: ranks=4 (1 stage per rank).",
        '<td class="number">1 MiB</td><td class="number">2 MiB</td>',
        "d_hid: 512",
        f"python -m pipezoo.rerun {tmp_path}/a\npython -m pipezoo stages=4 microbatches=8 schedule=1f1b",
    ):
        assert text in page


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"verified": "close", "max_relative_difference": 2e-7}, "<b>verified close</b> max relative difference 2e-07"),
        ({"verified": None}, "<b>not verified</b>"),
        ({"verified": None, "task": "simulate"}, "<b>simulated</b> nothing was trained"),
        ({"status": "failed", "error": "rank 1 was killed"}, '<pre class="error">rank 1 was killed</pre>'),
        ({"status": "running", "verified": None}, "<b>running</b>"),
        ({"verified": "failed", "status": "failed", "first_difference": "lin0.weight"}, ">lin0.weight<"),
    ],
)
def test_the_verdict_is_never_better_than_the_run(tmp_path: Path, more: dict, text: str) -> None:
    page = run_page(read_run(run_folder(tmp_path / "a", **more)))
    assert text in page
    assert ("verified exact" in page) == (text == "")


@pytest.mark.parametrize(("distance", "note"), [(0.0, "the same order"), (0.0275, "2.8 % of the pairs of actions")])
def test_the_neighbour_of_an_authors_order_is_a_fact(tmp_path: Path, distance: float, note: str) -> None:
    folder = run_folder(tmp_path / "run", nearest={"schedule": "zb_h1", "distance": distance})

    page = write_report(folder).read_text()

    assert "nearest fixed schedule" in page
    assert note in page


def test_the_page_names_nothing_outside_itself(tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path / "a")).read_text()
    assert not re.findall(r"(?:src|href|url|@import)\s*[=(]", page.split("<script>")[0])
    assert "http://" not in page
    assert "https://" not in page


def test_its_policy_allows_its_own_style_and_script_alone(tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path / "a")).read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"\s(?:style|on\w+)=", page.split("<script>")[0])


def test_a_timeline_unpacks_to_itself_within_a_tick() -> None:
    line = timeline(4, 8, jitter=0.3)
    data = packed([(line, Run(Path("a"), {}))])
    assert data is not None
    column = data["timelines"][0]
    order = np.lexsort((line.start, line.rank))
    tick = column["tick"]
    assert tick == pytest.approx(line.makespan / 2**32, rel=1e-6)
    np.testing.assert_allclose(unpack(column["start"]) * tick, line.start[order], atol=tick)
    np.testing.assert_allclose(unpack(column["length"]) * tick, (line.end - line.start)[order], atol=2 * tick)
    np.testing.assert_array_equal(unpack(column["stage"]), line.stage[order])
    np.testing.assert_array_equal(unpack(column["op"]), line.op[order])
    np.testing.assert_array_equal(unpack(column["microbatch"]) - 1.0, line.microbatch[order])
    assert column["offsets"] == [0, 16, 32, 48, 64]


def test_actions_that_follow_each_other_meet_exactly_so_that_memory_is_freed_before_it_is_taken() -> None:
    line = timeline(1, 50, jitter=0.3)
    data = packed([(line, Run(Path("a"), {}))])
    assert data is not None
    start, length = (unpack(data["timelines"][0][key]).astype(np.int64) for key in ("start", "length"))
    np.testing.assert_array_equal(start[1:], (start + length)[:-1])


def test_several_recorded_steps_are_told_apart(tmp_path: Path) -> None:
    lines = [timeline(2, 2, source=source) for source in ("predicted", "measured", "measured")]
    page = run_page(Run(tmp_path, {"status": "ok"}, timelines=lines))
    names = [line["name"] for line in embedded(page)["timelines"]]
    assert names == ["predicted", "measured 1", "measured 2"]


def test_a_thousand_spans_make_a_small_page() -> None:
    lines = [timeline(8, 64), timeline(8, 64, source="measured")]  # 2048 spans
    assert len(run_page(Run(Path("a"), {"status": "ok"}, timelines=lines))) < 90_000


def test_a_run_whose_files_are_torn_is_shown_without_them_and_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "timeline.npz").write_text("PK")
    (folder / "config.yaml").write_text("a: [1")
    (folder / ".hydra" / "overrides.yaml").write_text("\x00")
    page = write_report(folder).read_text()
    assert "timeline.npz: not a timeline of pipezoo" in page
    assert "config.yaml: not YAML" in page
    assert "verified exact" in page


def test_a_run_that_only_began_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "running"}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1.5}\n{"step": 1, "lo')
    run = read_run(tmp_path)
    assert run.losses == [1.5]
    assert "<b>running</b>" in run_page(run)


def test_a_folder_without_a_run_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        write_report(tmp_path)


@pytest.mark.parametrize("value", [None, [], "x", 7, {"a": {"b": [None]}}, [[1]], True, 1e400, -(10**400)])
def test_nonsense_under_any_key_of_the_result_breaks_no_page(tmp_path: Path, value: object) -> None:
    strange = dict.fromkeys(("losses", "step_seconds", "bubble", "memory", "prediction", "derived", "model"), value)
    (tmp_path / "result.json").write_text(json.dumps({"status": "ok"} | strange))
    assert "<h1>" in run_page(read_run(tmp_path))


def test_a_config_is_read_flat() -> None:
    nested = {"a": {"b": [1, None], "c": {}}, "d": [{"e": True}]}
    assert list(flat(nested)) == [("a.b", "[1, null]"), ("a.c", "{}"), ("d[0].e", "true")]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 500 + "]" * 500,
    ],
)
def test_a_config_without_end_is_cut(tmp_path: Path, text: str) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "config.yaml").write_text(text)
    assert len(read_run(folder).config) <= 10_000


def test_a_few_lines_that_unfold_into_a_hundred_million_values_are_cut(tmp_path: Path) -> None:
    levels = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in itertools.pairwise("abcdefgh"):
        levels.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    folder = run_folder(tmp_path / "a")
    (folder / "config.yaml").write_text("\n".join(levels))
    assert len(read_run(folder).config) <= 10_000


@pytest.mark.parametrize("huge", [1e308, -1e308, 10**400, 10**30, float("inf"), float("nan")])
def test_huge_numbers_in_every_place_of_a_result_make_a_page(tmp_path, huge):
    def swollen(value):
        if isinstance(value, dict):
            return {key: swollen(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [swollen(inner) for inner in value]
        return huge if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    folder = run_folder(tmp_path / "run")
    whole = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(swollen(whole)))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": huge, "loss": huge, "seconds": huge}) + "\n")
    assert write_report(folder).read_text().startswith("<!doctype html>")
