"""Which schedule wins when: the tables and pictures of docs/how-to-choose.md.

    python -m benchmarks.choose tables                 all tables; some of them: tables bubbles messages
    python -m benchmarks.choose pictures docs/pictures  all pictures, as SVG files in that folder

All but ``halves`` and ``runs`` is simulated, and the same on every machine. A rank's F, I and W take 1 each for a
microbatch unless said, W frees all of the activations, and a full backward is I + W. Memory counts in microbatches of a
whole rank.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipezoo.costs.unit import unit
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.plan import make_plans
from pipezoo.report.chart import line_chart
from pipezoo.report.svg import lay_out, to_svg
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.eager_1f1b import eager_1f1b
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.v_half import v_half
from pipezoo.schedules.v_min import v_min
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zb_h2 import zb_h2
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import predict, simulate

ONE = {"gpipe": gpipe, "1f1b": one_f_one_b, "eager_1f1b": eager_1f1b, "zb_h1": zb_h1, "zb_h2": zb_h2}
TWO = {
    "interleaved_1f1b": interleaved_1f1b,
    "interleaved_zero_bubble": interleaved_zero_bubble,
    "zbv": zbv,
    "dualpipev": dualpipev,
    "v_half": v_half,
    "v_min": v_min,
}
ALL: dict[str, Callable[..., Schedule]] = ONE | TWO
PALETTE = ("#1f5fa8", "#c2571a", "#2e8540", "#7a3e9d", "#b3261e", "#0f7c86", "#6b5b1e", "#5b6470")


def play(name: str, p: int, m: int, cost: Callable[[int, int], Cost] = unit) -> dict | None:
    """The prediction of a schedule; None where it cannot have these sizes. ``cost(num_stages, stages_per_rank)``."""
    v = 1 if name in ONE else 2
    try:
        return predict(ALL[name](p, m), cost(p * v, v))
    except ValueError:
        return None


def bubble(prediction: dict | None) -> float:
    return float(prediction["bubble"]["makespan"]) if prediction else math.nan


def step(prediction: dict | None) -> float:
    return float(prediction["step_seconds"]) if prediction else math.nan


def head(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")
    print("|---" * len(cells) + "|")


def grid(columns: dict[str, list[float]], labels: Sequence[str], form: str = ".3f") -> None:
    """A row for each schedule; the smallest of every column is bold, ``-`` where a schedule has no such size."""
    head("", *labels)
    least = [min(x for x in column if math.isfinite(x)) for column in zip(*columns.values(), strict=True)]
    for name, values in columns.items():
        cells = [_cell(value, low, form) for value, low in zip(values, least, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def _cell(value: float, least: float, form: str) -> str:
    if math.isnan(value):
        return "-"
    return f"**{value:{form}}**" if value <= least * (1 + 1e-9) + 1e-12 else f"{value:{form}}"


def bubbles() -> None:
    """The makespan bubble over ranks p and microbatches m, and the peak memory at p = 8, m = 32; messages are free."""
    sizes = [(4, 4), (4, 8), (4, 16), (4, 64), (8, 8), (8, 16), (8, 32), (8, 128), (16, 64)]
    columns = {name: [bubble(play(name, p, m)) for p, m in sizes] for name in ALL}
    grid(columns, [f"p={p} m={m}" for p, m in sizes])
    print()
    head("", "peak memory at p=8, m=32")
    for name in ALL:
        prediction = play(name, 8, 32)
        print(f"| {name} | {max(prediction['peak_memory']) if prediction else math.nan:g} |")


def messages() -> None:
    """The step time over what a message takes (a share of a rank's F), p = 8, m = 32; 96 would be no bubble at all."""
    shares = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
    columns = {
        name: [step(play(name, 8, 32, lambda s, v, p2p=p2p: unit(s, v, p2p=p2p))) for p2p in shares] for name in ALL
    }
    grid(columns, [f"p2p {share:g}" for share in shares], ".1f")
    print()
    head("messages on the critical path", *(f"p2p {share:g}" for share in shares[1:]))
    for name in ALL:
        found = [play(name, 8, 32, lambda s, v, p2p=p2p: unit(s, v, p2p=p2p)) for p2p in shares[1:]]
        counts = [prediction["critical_path"]["num_messages"] if prediction else "-" for prediction in found]
        print(f"| {name} | {' | '.join(map(str, counts))} |")


def uneven() -> None:
    """The step time over how much longer the last of the model's layers takes, p = 4, m = 32, p2p .05.

    The model has eight equal layers of 1/2; the last one takes so many times as long (a head of a large vocabulary).
    """
    times = (1.0, 1.25, 1.5, 2.0, 3.0)

    def cost(num_stages: int, v: int, factor: float) -> Cost:
        layers = np.full(8, 0.5)
        layers[-1] *= factor
        of_stage = layers.reshape(num_stages, -1).sum(axis=1)
        stages = [{"F": x, "I": x, "W": x, "activation_bytes": x} for x in of_stage.tolist()]
        return Cost.from_dict({"stages": stages, "p2p": {"latency": 0.05}})

    columns = {
        name: [step(play(name, 4, 32, lambda s, v, f=factor: cost(s, v, f))) for factor in times] for name in ALL
    }
    busiest = [32 * 3 * (0.5 + 0.5 * factor) for factor in times]
    grid(columns, [f"{factor:g} times" for factor in times], ".1f")
    print(
        "| work of the rank of the last layer, with a layer of 1/2 | " + " | ".join(f"{x:.1f}" for x in busiest) + " |"
    )


def split() -> None:
    """How many times as fast as its unsplit cousin, over what I + W takes of a full backward; p = 8, p2p .05."""
    ratios = (1.0, 1.05, 1.1, 1.2, 1.3, 1.5)
    head("", "m", *(f"I + W = {ratio:g} B" for ratio in ratios))
    for name, cousin in (("zb_h1", "1f1b"), ("zb_h2", "1f1b"), ("zbv", "interleaved_1f1b"), ("zbv", "1f1b")):
        for m in (16, 64):
            base = step(play(cousin, 8, m, lambda s, v: halves_cost(s, v, 1.0)))
            cells = [base / step(play(name, 8, m, lambda s, v, r=ratio: halves_cost(s, v, r))) for ratio in ratios]
            marked = [f"**{cell:.3f}**" if cell > 1 else f"{cell:.3f}" for cell in cells]
            print(f"| {name} over {cousin} | {m} | {' | '.join(marked)} |")


def halves_cost(num_stages: int, v: int, ratio: float) -> Cost:
    """A full backward of 2; its halves take ``ratio`` times as long together."""
    stage = {"F": 1 / v, "B": 2 / v, "I": ratio / v, "W": ratio / v, "activation_bytes": 1 / v}
    return Cost.from_dict({"stages": stage, "p2p": {"latency": 0.05}}, num_stages)


def with_hop(num_stages: int, v: int, num_microbatches: int) -> Cost:
    return unit(num_stages, v, p2p=0.05)


def memory() -> None:
    """The best plan in so much memory, p = 8, m = 32, p2p .05: fixed schedules, and an order made for it."""
    head("memory", "best fixed schedule", "step", "best plan", "step", "times as fast")
    for limit in (4, 5, 6, 7, 8, 9, 10, 12, 16, 32):
        options = PlanOptions(memory=float(limit), time_limit_s=10.0, iterations=100)
        plans = make_plans(with_hop, 8, [32], options)
        best, fixed = plans.ranked[0], plans.best_fixed
        known = [fixed.name, f"{fixed.step:.1f}"] if fixed else ["none fits", ""]
        faster = f"{fixed.step / best.step:.3f}" if fixed else ""
        print(f"| {limit} | {' | '.join(known)} | {best.name} | {best.step:.1f} | {faster} |", flush=True)


def halves() -> None:
    """What splitting a backward costs here: I + W over B, by ``cost=measured``, on the second of three stages."""
    head("model", "rows of a microbatch", "F", "B", "I + W", "I + W over B")
    for words in (
        "model=multi_mlp model.d_hid=128 batch_size=128",
        "model=multi_mlp model.d_hid=512 batch_size=512",
        "model=multi_mlp model.d_hid=1024 batch_size=512",
        "model=multi_mlp model.d_hid=2048 batch_size=2048",
        "model=gpt model.width=64 batch_size=32",
        "model=gpt model.width=256 batch_size=32",
    ):
        measured = _measured(words.split())
        whole, both = measured["B"], measured["I"] + measured["W"]
        rows = int(words.rpartition("=")[2]) // 8
        model = " ".join(words.split()[:2])
        print(
            f"| `{model}` | {rows} | {measured['F'] * 1e3:.2f} ms | {whole * 1e3:.2f} ms | {both * 1e3:.2f} ms "
            f"| {both / whole:.2f} |",
            flush=True,
        )


def runs(turns: int = 3) -> None:
    """Steps of real runs, p = 4, m = 16, virtual ranks, messages of 0.1 ms, 2 GB/s: medians of three runs, in turns."""
    models = {
        "gpt, width 64, 10 blocks": "model=gpt model.depth=10 split=balanced",
        "multi_mlp, width 512, 8 layers": "model=multi_mlp model.d_hid=512 model.n_layers=8 batch_size=1024",
    }
    fixed = ["launch=virtual", "launch.latency=1e-4", "launch.bandwidth=2e9", "ranks=4", "microbatches=16"]
    names = [name for name in ALL if name not in ("zb_h2", "v_min")]
    took: dict[str, list[list[float]]] = {name: [[] for _ in models] for name in names}
    for _ in range(turns):
        for name in names:
            for column, words in enumerate(models.values()):
                result = _result([f"schedule={name}", "verify=false", "steps=6", *fixed, *words.split()])
                took[name][column].append(1e3 * result["step_seconds"]["median"])
    medians = {name: [statistics.median(column) for column in columns] for name, columns in took.items()}
    grid(medians, [f"{model}, ms" for model in models], ".0f")


def _measured(words: list[str]) -> dict[str, float]:
    """The costs of the second of three stages."""
    fixed = ["task=simulate", "stages=3", "microbatches=8", "cost=measured", "cost.steps=5", "cost.latency=0"]
    result = _result([*fixed, "cost.bandwidth=inf", *words])
    stage: dict[str, float] = result["prediction"]["cost"]["stages"][1]
    return stage


def _result(words: list[str]) -> dict[str, Any]:
    """Run a command; its ``result.json``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipezoo", *words, f"hydra.run.dir={folder}/x"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads((Path(folder) / "x" / "result.json").read_text())
    return found


def drawn() -> str:
    """Four ranks, eight microbatches: gpipe, 1f1b, interleaved_1f1b, zb_h1, zbv, v_half at equal costs, p2p .1."""
    timelines = []
    for name in ("gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zbv", "v_half"):
        v = 1 if name in ONE else 2
        timelines.append(replace(simulate(ALL[name](4, 8), unit(4 * v, v, p2p=0.1)), source=name))
    return to_svg(lay_out(timelines, 1000, "Four ranks, eight microbatches, a p2p message of a tenth of a forward"))


def bubble_over_m() -> str:
    """The bubble over the number of microbatches, eight ranks."""
    counts = (8, 16, 24, 32, 48, 64, 96, 128)
    names = ("1f1b", "interleaved_1f1b", "zb_h1", "v_half", "v_min", "zbv")
    lines = {name: [(float(i), bubble(play(name, 8, m))) for i, m in enumerate(counts)] for name in names}
    return chart(lines, "makespan bubble over the number of microbatches, 8 ranks", [str(m) for m in counts])


def step_over_p2p() -> str:
    """The step over the p2p message, eight ranks, 32 microbatches."""
    shares = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    names = ("1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "dualpipev", "zbv")
    lines = {}
    for name in names:
        steps = [step(play(name, 8, 32, lambda s, v, h=p2p: unit(s, v, p2p=h))) for p2p in shares]
        lines[name] = [(float(i), value) for i, value in enumerate(steps)]
    what = "step time over a message's time (a share of a rank's forward), 8 ranks, 32 microbatches"
    return chart(lines, what, [f"{share:g}" for share in shares], from_zero=False)


def step_over_memory() -> str:
    """The step over the memory that there is: fixed schedules, and plans."""
    limits = (4, 5, 6, 7, 8, 10, 12, 16)
    best: list[tuple[float, float]] = []
    fixed: list[tuple[float, float]] = []
    for i, limit in enumerate(limits):
        plans = make_plans(with_hop, 8, [32], PlanOptions(memory=float(limit), time_limit_s=10.0, iterations=100))
        best.append((float(i), plans.ranked[0].step))
        fixed.append((float(i), plans.best_fixed.step if plans.best_fixed else float("nan")))
    what = "step time over memory in microbatches of a rank, 8 ranks, 32 microbatches, p2p .05"
    return chart(
        {"best fixed schedule": fixed, "best plan": best}, what, [str(limit) for limit in limits], from_zero=False
    )


def chart(lines: dict[str, list[tuple[float, float]]], what: str, labels: Sequence[str], from_zero: bool = True) -> str:
    """A chart that stands alone: its colours and the names of its lines in itself, on white."""
    inner = str(line_chart(lines, what, labels, from_zero, dots=True))
    opening, _, rest = inner.partition(">")
    height = int(opening.rpartition('viewBox="0 0 440 ')[2].partition('"')[0])
    style = "text{font:12px sans-serif;fill:#444}.right{text-anchor:end}.middle{text-anchor:middle}"
    style += ".grid{stroke:#d9dde3}polyline{fill:none;stroke:currentColor;stroke-width:2}circle{fill:currentColor}"
    style += "".join(f".k{kind}{{color:{colour}}}" for kind, colour in enumerate(PALETTE))
    legend = "".join(
        f'<g class="k{i}"><circle cx="452" cy="{22 + 20 * i}" r="4"/><text x="462" y="{26 + 20 * i}">{name}</text></g>'
        for i, name in enumerate(lines)
    )
    title = f'<text x="10" y="-8">{what}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -24 620 {height + 24}" width="620" role="img" '
        f'aria-label="{what}"><style>{style}</style><rect y="-24" width="620" height="{height + 24}" fill="#fff"/>'
        f"{title}{rest.removesuffix('</svg>')}{legend}</svg>\n"
    )


TABLES = {table.__name__: table for table in (bubbles, messages, uneven, split, memory, halves, runs)}
PICTURES = {picture.__name__: picture for picture in (drawn, bubble_over_m, step_over_p2p, step_over_memory)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tables", "pictures"))
    parser.add_argument("which", nargs="*", help=f"tables of {', '.join(TABLES)}; for pictures the folder")
    arguments = parser.parse_args()
    if arguments.what == "pictures":
        folder = Path(arguments.which[0] if arguments.which else "docs/pictures")
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in PICTURES.items():
            (folder / f"{name.replace('_', '-')}.svg").write_text(picture(), encoding="utf-8")
            print(folder / f"{name.replace('_', '-')}.svg")
        return
    if unknown := set(arguments.which) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for name in arguments.which or TABLES:
        print(f"\n### {name}: {' '.join((TABLES[name].__doc__ or '').split())}\n")
        TABLES[name]()


if __name__ == "__main__":
    main()
