"""The page on which an order is edited: its clock is the simulator's, and what it writes is run and verified."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipezoo.errors import ScheduleError
from pipezoo.report.orders import orders
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import ZOO
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate
from pipezoo.studio.__main__ import main, page
from tests.support.browser import CHROMIUM, Browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
VERDICT = "document.getElementById('verdict')"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studio") / "studio.html"
    path.write_text(page(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def random_order(chance: random.Random) -> list[list[Action]]:
    """A legal order: some action that could run next, again and again."""
    num_ranks, num_microbatches = chance.randint(1, 9), chance.randint(1, 5)
    num_stages = num_ranks * chance.randint(1, 2)
    split = {(stage, i) for stage in range(num_stages) for i in range(num_microbatches) if chance.random() < 0.5}
    done: set[Action] = set()
    waiting = [Action(stage, Op.F, i) for stage in range(num_stages) for i in range(num_microbatches)]
    for one in list(waiting):
        halves = (Op.I, Op.W) if (one.stage, one.microbatch) in split else (Op.B,)
        waiting += [Action(one.stage, op, one.microbatch) for op in halves]

    def needs(action: Action) -> list[Action]:
        stage, op, i = action.stage, action.op, action.microbatch
        back = Action(stage + 1, Op.I if (stage + 1, i) in split else Op.B, i)
        if op == Op.F:
            return [Action(stage - 1, Op.F, i)] if stage else []
        if op == Op.W:
            return [Action(stage, Op.I, i)]
        return [Action(stage, Op.F, i), *([back] if stage + 1 < num_stages else [])]

    ranks: list[list[Action]] = [[] for _ in range(num_ranks)]
    while waiting:
        action = chance.choice([one for one in waiting if done.issuperset(needs(one))])
        waiting.remove(action)
        done.add(action)
        ranks[action.stage % num_ranks].append(action)
    return ranks


def random_cost(chance: random.Random, num_stages: int) -> Cost:
    table = [[chance.uniform(0.1, 3) for _ in range(4)] for _ in range(num_stages)]
    keeps = [chance.uniform(1, 2) for _ in range(num_stages)]
    frees = [chance.uniform(0, 1) for _ in range(num_stages)]
    return Cost(table, activation_bytes=keeps, freed_by_input_grad=frees, p2p=chance.uniform(0, 2))


def why_not(ranks: list[list[Action]]) -> str:
    try:
        Schedule.from_orders(ranks)
    except ScheduleError as error:
        return str(error)
    return ""


def in_the_page(browser: Browser, ranks: list[list[Action]], cost: Cost) -> dict:
    plain = [[{"op": int(a.op), "stage": a.stage, "microbatch": a.microbatch} for a in order] for order in ranks]
    costs = {
        "seconds": cost.seconds.tolist(),
        "p2p": [cost.p2p.latency] * max(0, cost.num_stages - 1),
        "keeps": cost.activation_bytes.tolist(),
        "frees": cost.freed_by_input_grad.tolist(),
    }
    line = f"JSON.stringify(clock.play({json.dumps(plain)}, {json.dumps(costs)}))"
    return json.loads(browser.run(line))


@needs_browser
def test_its_clock_gives_the_simulators_numbers_to_the_last_bit_on_hundreds_of_orders(
    browser: Browser, written: Path
) -> None:
    browser.open(written)
    chance = random.Random(7)
    for _ in range(300):
        ranks = random_order(chance)
        schedule = Schedule.from_orders(ranks)
        cost = random_cost(chance, schedule.num_stages)
        told, line = in_the_page(browser, ranks, cost), simulate(schedule, cost)
        assert told["start"] == line.start.tolist()
        assert told["end"] == line.end.tolist()
        assert (told["makespan"], told["bubble"], told["spanBubble"]) == (line.makespan, line.bubble, line.span_bubble)
        assert told["peaks"] == line.peak_memory.tolist()


@needs_browser
def test_an_order_that_cannot_run_is_told_in_the_words_of_the_command_line(browser: Browser, written: Path) -> None:
    browser.open(written)
    chance, seen = random.Random(11), set()
    for _ in range(200):
        ranks = random_order(chance)
        for order in ranks:
            at = chance.randrange(len(order))
            order.insert(chance.randrange(len(order)), order.pop(at))
        num_stages = 1 + max(action.stage for order in ranks for action in order)
        told = in_the_page(browser, ranks, random_cost(chance, num_stages))
        said = why_not(ranks)
        assert told.get("error", "") == said
        seen.add("deadlocks" if "deadlocks" in said else "comes before" if said else "")
    assert seen == {"deadlocks", "comes before", ""}


def centre(browser: Browser, name: str) -> tuple[float, float]:
    group = f"[...document.querySelectorAll('.action')].find((g) => g.getAttribute('aria-label').startsWith('{name} '))"
    box = browser.run(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({group}.getBoundingClientRect())"
    )
    return tuple(box)


def drag(browser: Browser, name: str, to: str, beyond: float = 6) -> None:
    (x, y), (there, _) = centre(browser, name), centre(browser, to)
    browser.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseMoved", (x + there) / 2, y, button="left", buttons=1)
    browser.mouse("mouseMoved", there + beyond, y, button="left", buttons=1)
    browser.mouse("mouseReleased", there + beyond, y, button="left", clickCount=1)


def choose(browser: Browser, **values: object) -> None:
    for name, value in values.items():
        field = f"document.getElementById('studio').elements.{name}"
        browser.run(f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('change')); 0")
        browser.run(f"{field}.dispatchEvent(new Event('input')); 0")


@needs_browser
def test_an_order_made_in_the_page_is_run_and_verified_and_takes_what_the_page_says(
    browser: Browser, written: Path, tmp_path: Path, cli
) -> None:
    browser.open(written)
    choose(browser, schedule="zb_h1", ranks=2, microbatches=4)
    browser.run("scrollTo(0, 0)")
    before = browser.run("document.getElementById('csv').textContent")
    drag(browser, "1W0", "1F2")  # a weight gradient goes behind the next forward
    split = centre(browser, "0B0") if "0B0" in before else centre(browser, "0I0")
    browser.mouse("mousePressed", *split, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseReleased", *split, button="left", clickCount=1)
    browser.run("document.querySelector('[data-act=split]').click()")
    after = browser.run("document.getElementById('csv').textContent")

    assert after != before
    assert ("0B0" in after) != ("0B0" in before)
    makespan = float(browser.run(f"{VERDICT}.dataset.makespan"))
    path = tmp_path / "order.csv"
    path.write_text(after)
    schedule = Schedule.from_csv(path)
    assert makespan == simulate(schedule, Cost(np.full((2, 4), [1.0, 2.0, 1.0, 1.0]))).makespan

    words = ("model=multi_mlp", "model.d_hid=8", "stages=2", "schedule=csv", f"schedule.file={path}", "launch=virtual")
    done = cli(*words, "steps=2", f"hydra.run.dir={tmp_path}/run")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["verified"] == "exact"


@needs_browser
def test_the_order_is_downloaded_as_a_file(browser: Browser, written: Path, tmp_path: Path) -> None:
    browser.open(written)
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.querySelector('[data-act=csv]').click()")
    file = tmp_path / "order.csv"
    for _ in range(200):
        if file.exists() and file.stat().st_size:
            break
        browser.run("new Promise((done) => setTimeout(() => done(1), 20))")
    assert Schedule.from_csv(file).digest() == ZOO["1f1b"](4, 8).digest()


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_window_and_races_all_schedules(browser: Browser, written: Path, width: int) -> None:
    browser.open(written, width)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("document.querySelectorAll('#race tr').length") > 10
    choose(browser, last=2)
    first = browser.run("document.querySelector('#race td').textContent")
    assert float(first.removesuffix(" units")) > 27
    assert browser.messages == []
    assert browser.requests == [written.resolve().as_uri()]


@needs_browser
def test_the_keyboard_moves_an_action_and_undoes_it(browser: Browser, written: Path) -> None:
    browser.open(written)
    choose(browser, schedule="1f1b", ranks=2, microbatches=2)
    browser.run("document.querySelector('.action').focus()")
    csv = "document.getElementById('csv').textContent"
    assert browser.run(csv) == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"

    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", modifiers=1)  # Alt
    assert browser.run(csv) == "0F1,0F0,0B0,0B1\n1F0,1B0,1F1,1B1\n"
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", modifiers=1)
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", modifiers=1)
    assert browser.run(f"{VERDICT}.textContent") == "error: rank 0: 0B0 comes before 0F0, which it needs"
    for _ in range(3):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="u")
        browser.run("document.querySelector('.action').focus()")
    assert browser.run(csv) == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def test_every_order_that_it_offers_is_that_of_the_zoo() -> None:
    offered = orders()
    assert {key.split(",")[0] for key in offered["orders"]} == set(ZOO.names())
    zbv = offered["orders"]["zbv,4,8"]
    assert zbv["offsets"] == ZOO["zbv"](4, 8).compute_only().offsets.tolist()


def test_it_writes_a_page_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path / "a.html")]) == 0
    assert main(["-o", str(tmp_path / "a.txt")]) == 2
    assert capsys.readouterr().err == f"error: output={tmp_path}/a.txt: must end in .html\n"
