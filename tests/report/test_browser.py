"""The pages in a real browser: they draw, zoom and tell, run nothing foreign, and stay usable with 100 000 spans."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipezoo.report.compare import to_page
from pipezoo.report.html import run_page, write_report
from pipezoo.report.sweep_page import write_sweep_report
from pipezoo.results.run import Run, Timelines, read_run
from pipezoo.results.run_dir import write_text
from pipezoo.results.timeline_file import load_timelines, save_timelines
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from tests.support.browser import CHROMIUM, Browser
from tests.support.run_folders import run_folder
from tests.support.timelines import timeline

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

ATTACK = "</script></style></pre><img src=x onerror=attack()><script>attack()</script><svg onload=attack()>\"'`"
CANVAS = "document.querySelector('canvas')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def shown(browser: Browser) -> dict[str, float]:
    return {key: float(value) for key, value in json.loads(browser.run(f"JSON.stringify({CANVAS}.dataset)")).items()}


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_a_run_fits_the_window_and_draws_every_span(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.open(write_report(run_folder(tmp_path / "a")), width, dark=dark)
    assert shown(browser)["boxes"] == 2 * 4 * 8 * 2  # predicted and measured, ranks, microbatches, F and B
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.messages == []


def test_nothing_is_asked_from_anywhere(browser: Browser, tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path / "a"))
    browser.open(page)
    assert browser.requests == [page.resolve().as_uri()]


def test_zooming_and_moving_change_what_is_shown_and_all_brings_it_back(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(run_folder(tmp_path / "a")))
    whole = shown(browser)
    top = browser.run(f"{CANVAS}.getBoundingClientRect().top + scrollY")
    browser.mouse("mouseWheel", 600, top + 60, deltaX=0, deltaY=-200, modifiers=2)  # with Ctrl
    assert shown(browser)["boxes"] < whole["boxes"]
    assert " to " in browser.run("document.querySelector('output').textContent")
    near = browser.run("document.querySelector('output').textContent")
    browser.mouse("mousePressed", 600, top + 60, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseMoved", 500, top + 60, button="left", buttons=1)
    browser.mouse("mouseReleased", 500, top + 60, button="left", clickCount=1)
    assert browser.run("document.querySelector('output').textContent") != near
    browser.run("document.querySelector('[data-act=all]').click()")
    browser.mouse("mouseMoved", 5, 5)
    assert shown(browser)["boxes"] == whole["boxes"]


def test_the_wheel_alone_scrolls_the_page_and_does_not_zoom(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(run_folder(tmp_path / "a")))
    whole = shown(browser)["boxes"]
    browser.mouse("mouseWheel", 600, 500, deltaX=0, deltaY=200)
    browser.wait_for("scrollY > 0")
    assert shown(browser)["boxes"] == whole


def test_the_mouse_on_a_span_tells_what_it_is_in_both_timelines(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(run_folder(tmp_path / "a")))
    top = browser.run(f"{CANVAS}.getBoundingClientRect().top")
    left = browser.run(f"{CANVAS}.getBoundingClientRect().left")
    browser.mouse("mouseMoved", left + 66, top + 38)
    tip = browser.run("document.querySelector('.tip').textContent").splitlines()
    assert tip[0] == "0F0: forward of stage 0, microbatch 0, rank 0"
    assert tip[2].startswith("predicted: takes 1 ms")
    assert tip[3].startswith("measured: takes ")
    browser.mouse("mouseMoved", left + 300, top + 38)
    assert browser.run("document.querySelector('.tip').textContent").splitlines() == [
        "rank 0 waits 6 ms before 0B0",
        "6 ms until 1B0 of rank 1 ended",
    ]


def test_memory_over_time_can_be_shown_and_hidden(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(run_folder(tmp_path / "a")))
    high = browser.run(f"{CANVAS}.clientHeight")
    browser.run("document.querySelector('[data-act=memory]').click()")
    browser.mouse("mouseMoved", 5, 5)
    assert browser.run(f"{CANVAS}.clientHeight") < high


def test_the_keyboard_zooms_too(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(run_folder(tmp_path / "a")))
    whole = shown(browser)["boxes"]
    browser.run(f"{CANVAS}.focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="+", text="+")
    browser.mouse("mouseMoved", 5, 5)
    assert shown(browser)["boxes"] < whole


def test_a_hundred_thousand_spans_are_drawn_within_a_blink(browser: Browser, tmp_path: Path) -> None:
    lines = [timeline(64, 400), timeline(64, 400, source="measured")]  # 102 400 spans
    write_text(tmp_path / "report.html", run_page(Run(tmp_path, {"status": "ok"}, timelines=lines)))
    assert (tmp_path / "report.html").stat().st_size < 4_000_000
    browser.open(tmp_path / "report.html")
    frames = []
    for _ in range(8):
        browser.run("document.querySelector('[data-act=in]').click()")
        browser.mouse("mouseMoved", 5, 5)
        frames.append(shown(browser)["milliseconds"])
    assert sorted(frames)[4] < 250, frames  # 5 to 25 ms on an idle machine; this one may be busy
    assert shown(browser)["boxes"] > 0  # near enough now to see single actions


def hostile(tmp_path: Path) -> Path:
    folder = run_folder(tmp_path / "a", model=ATTACK, schedule=ATTACK, error=ATTACK, derived=[ATTACK], status=ATTACK)
    result = json.loads((folder / "result.json").read_text()) | {ATTACK: {ATTACK: ATTACK}, "dtype": ATTACK}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(json.dumps({ATTACK: ATTACK}))
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"a={ATTACK}", f"{ATTACK}=2"]))
    save_timelines(folder, [replace(line, source=ATTACK) for line in load_timelines(folder)])
    return folder


def assert_harmless(browser: Browser, page: Path) -> None:
    browser.open(page)
    found = browser.run(
        "[...document.querySelectorAll('img, svg[onload], script')].map((e) => e.outerHTML.slice(0, 40))"
    )
    assert [tag[:7] for tag in found] == ["<script", "<script"]  # the data and our code
    assert browser.run("typeof attack") == "undefined"
    assert "onerror=attack()" in browser.run("document.body.textContent")  # there, as text
    assert browser.messages == []
    assert browser.requests == [page.resolve().as_uri()]


def test_hostile_strings_everywhere_in_a_run_are_text_on_its_page(browser: Browser, tmp_path: Path) -> None:
    assert_harmless(browser, write_report(hostile(tmp_path)))


def test_hostile_strings_are_text_when_runs_are_compared(browser: Browser, tmp_path: Path) -> None:
    runs = [read_run(run_folder(tmp_path / "b")), read_run(hostile(tmp_path))]
    write_text(tmp_path / "compare.html", to_page(runs))
    assert_harmless(browser, tmp_path / "compare.html")


def test_hostile_strings_are_text_on_the_page_of_a_sweep(browser: Browser, tmp_path: Path) -> None:
    hostile(tmp_path / "sweep")
    run_folder(tmp_path / "sweep" / "javascript:attack()")
    page = write_sweep_report(tmp_path / "sweep")
    assert_harmless(browser, page)
    assert all(link.startswith("./") for link in browser.run("[...document.links].map((a) => a.getAttribute('href'))"))


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path / "a"))
    page.write_text(page.read_text().replace("<main>", "<main><script>document.title = 'owned'</script>"))
    browser.open(page)
    assert browser.run("document.title") != "owned"
    assert any("Content Security Policy" in message for message in browser.messages)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_a_sweep_sorts_its_table_and_links_its_jobs(browser: Browser, tmp_path: Path, width: int) -> None:
    for i, num_ranks in enumerate((4, 2, 8)):
        write_report(run_folder(tmp_path / str(i), num_ranks))
    (tmp_path / "3" / ".hydra").mkdir(parents=True)
    (tmp_path / "3" / ".hydra" / "overrides.yaml").write_text('["stages=16", "microbatches=8", "schedule=1f1b"]')
    browser.open(write_sweep_report(tmp_path), width)
    assert browser.run("document.documentElement.scrollWidth") == width
    column = "[...document.querySelectorAll('tbody tr')].map((row) => row.cells[1].textContent)"
    assert browser.run(column) == ["4", "2", "8", "16"]
    for expected in (["2", "4", "8", "16"], ["16", "8", "4", "2"]):
        browser.run("document.querySelectorAll('th button')[1].click()")
        assert browser.run(column) == expected
    links = browser.run("[...document.links].map((a) => a.getAttribute('href'))")
    assert links[:3] == ["./3/", "./2/report.html", "./0/report.html"]
    assert browser.run("document.querySelectorAll('.multiples svg').length") == 3
    assert browser.run("document.querySelectorAll('.chart').length") == 3
    assert browser.messages == []


TOLD = "document.querySelector('.told').textContent"


def press(browser: Browser, *names: str) -> list[str]:
    """What the page says after each key."""
    said = []
    for name in names:
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=name)
        browser.mouse("mouseMoved", 5, 5)
        said.append(browser.run(TOLD))
    return said


def place(browser: Browser, x: float, y: float) -> tuple[float, float]:
    """A point of the canvas, from its left top corner."""
    left, top = browser.run(f"(({{left, top}}) => [left, top])({CANVAS}.getBoundingClientRect())")
    return left + x, top + y


def click(browser: Browser, x: float, y: float) -> str:
    for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
        browser.mouse(kind, *place(browser, x, y), button="left", buttons=buttons, clickCount=1)
    return browser.run(TOLD)


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """Rank 0 waits from 4 to 6 for the first gradient of rank 1, which takes 4 as rank 1 has a slow backward."""
    order = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]], name="two")
    line = simulate(order, Cost(F=[1, 1], B=[2, 4], unit="unit"))
    write_text(tmp_path / "report.html", run_page(Run(tmp_path, {"status": "ok"}, timelines=Timelines([line]))))
    return tmp_path / "report.html"


IDLE = "predicted: rank 0 waits 4 units before 0B0: 4 units until 1B0 of rank 1 ended."


@pytest.mark.parametrize("width", [1280, 400])
def test_a_click_on_an_idle_stretch_tells_and_frames_the_chain_behind_it(
    browser: Browser, waiting: Path, width: int
) -> None:
    browser.open(waiting, width)
    plot = (58, 1280 - 50 - 60 - 112) if width == 1280 else (22, 400 - 26 - 22 - 14)
    said = click(browser, plot[0] + plot[1] * 4 / 13, 40)

    assert said == IDLE + " Behind it: 1B0 (rank 1, 2 actions from 1F0 on), which waited for 0F0 (rank 0)."
    assert shown(browser)["chain"] == 4  # 0B0, 1B0, 1F0, 0F0


def test_the_keyboard_walks_from_action_to_action_and_over_idle_stretches(browser: Browser, waiting: Path) -> None:
    browser.open(waiting)
    browser.run(f"{CANVAS}.focus()")
    said = press(browser, "Enter", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "Escape")

    assert [words.partition(". ")[0] for words in said] == [
        "predicted: 0F0 of rank 0, 0 units to 1 units",
        "predicted: 0F1 of rank 0, 1 units to 2 units",
        IDLE.removesuffix("."),
        "predicted: 0B0 of rank 0, 6 units to 8 units",
        "predicted: 1F1 of rank 1, 6 units to 7 units",
        "predicted: 1B0 of rank 1, 2 units to 6 units",
        "",
    ]
    assert browser.run("document.querySelector('.told').getAttribute('role')") == "status"


def test_a_stretch_that_is_marked_is_added_up(browser: Browser, waiting: Path) -> None:
    browser.open(waiting)
    plot = (58, 1280 - 50 - 60 - 112)
    for kind, time in (("mousePressed", 0), ("mouseMoved", 4), ("mouseMoved", 13), ("mouseReleased", 13)):
        x = plot[0] + 2 + (plot[1] - 4) * time / 13
        browser.mouse(kind, *place(browser, x, 60), button="left", buttons=1, clickCount=1, modifiers=8)  # Shift

    said = browser.run(TOLD)
    assert "F 4 units, B 12 units; idle by rank 0: 5" in said.replace("3.99", "4").replace("11.9", "12"), said


def test_path_and_messages_are_drawn_when_asked_for(browser: Browser, waiting: Path) -> None:
    browser.open(waiting)
    browser.run("document.querySelector('[data-act=messages]').click()")
    browser.run("document.querySelector('[data-act=path]').click()")
    browser.mouse("mouseMoved", 5, 5)

    assert shown(browser)["messages"] == 4  # 0F0 and 0F1 to rank 1, 1B0 and 1B1 to rank 0
    assert browser.messages == []


def test_lanes_of_many_ranks_grow_until_their_actions_have_names(browser: Browser, tmp_path: Path) -> None:
    lines = Timelines([timeline(64, 64)])
    write_text(tmp_path / "report.html", run_page(Run(tmp_path, {"status": "ok"}, timelines=lines)))
    browser.open(tmp_path / "report.html")
    whole = shown(browser)
    for _ in range(4):
        browser.run("document.querySelector('[data-act=in]').click()")
    browser.mouse("mouseMoved", 5, 5)

    assert whole["labels"] == 0
    assert shown(browser)["labels"] > 64
    assert browser.run("document.querySelector('.scroller').scrollHeight") > browser.run("innerHeight") * 0.8


@pytest.mark.skipif("PIPEZOO_AXE" not in os.environ, reason="PIPEZOO_AXE names no axe.min.js (npm pack axe-core)")
@pytest.mark.parametrize("page", ["run", "comparison", "sweep"])
def test_axe_finds_nothing_to_mend(browser: Browser, tmp_path: Path, page: str) -> None:
    folders = [run_folder(tmp_path / "sweep" / name, schedule=name) for name in ("1f1b", "zb")]
    write_text(tmp_path / "comparison.html", to_page(list(map(read_run, folders))))
    pages = {"run": write_report(folders[0]), "comparison": tmp_path / "comparison.html"}
    pages["sweep"] = write_sweep_report(tmp_path / "sweep")
    browser.open(pages[page])
    browser.run(Path(os.environ["PIPEZOO_AXE"]).read_text(encoding="utf-8") + "; 0")
    said = browser.run("axe.run().then((all) => all.violations.map((v) => [v.id, v.nodes[0].html.slice(0, 200)]))")
    assert said == []


def test_rows_of_a_sweep_are_filtered_by_words(browser: Browser, tmp_path: Path) -> None:
    for name in ("1f1b", "zb"):
        run_folder(tmp_path / name, schedule=name)
    browser.open(write_sweep_report(tmp_path))
    browser.run(
        "(() => { const field = document.querySelector('.filter'); field.value = 'ZB ok';"
        " field.dispatchEvent(new Event('input')); })()"
    )
    assert browser.run("[...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden).length") == 1
    assert browser.run("document.querySelector('.filtered').textContent") == "1 of 2"
    assert browser.messages == []
