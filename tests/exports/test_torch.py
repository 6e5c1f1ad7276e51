"""The files that torch is given: torch's own runtime loads them, trains with them, and gets one device's gradients."""

from __future__ import annotations

import multiprocessing
import runpy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage

from pipezoo.exports.spec import ExportSpec
from pipezoo.exports.torch import torch as export
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.from_csv import from_csv
from pipezoo.schedules.grouped_interleaved_1f1b import grouped_interleaved_1f1b
from pipezoo.schedules.hanayo import hanayo
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.v_half import v_half
from pipezoo.schedules.zb_h2 import zb_h2
from tests.support import zoo

ROWS, WIDTH = 2, 4
ORDERS = [one_f_one_b, zb_h2, grouped_interleaved_1f1b, v_half, hanayo, dualpipev]
FILES = ["compute_only.csv", "compute_comms.csv"]


def layers(num_stages):
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).double() for _ in range(num_stages)]


def batch(num_microbatches):
    torch.manual_seed(1)
    return torch.randn(2, ROWS * num_microbatches, WIDTH, dtype=torch.float64)


def one_device(num_stages, num_microbatches):
    """The gradients of every stage, and the loss of every microbatch."""
    model, (x, target) = nn.Sequential(*layers(num_stages)), batch(num_microbatches)
    losses = [nn.functional.mse_loss(model(a), b) for a, b in zip(x.split(ROWS), target.split(ROWS), strict=True)]
    (sum(losses) / num_microbatches).backward()
    return [[p.grad for p in stage.parameters()] for stage in model], [float(loss.detach()) for loss in losses]


def train(rank, folder, queue):
    """One rank: a step with each of the folder's files, loaded by the lines that came with them."""
    torch.set_num_threads(1)
    lines = runpy.run_path(str(folder / "load.py"))
    placed = lines["STAGE_TO_RANK"]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=max(placed) + 1)
    num_microbatches = from_csv(folder / "compute_only.csv").num_microbatches
    x, target = batch(num_microbatches)
    example = torch.empty(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    for name in FILES:
        modules = layers(len(placed))
        own = [stage for stage, owner in enumerate(placed) if owner == rank]
        stages = [
            PipelineStage(modules[s], s, len(placed), torch.device("cpu"), input_args=example, output_args=example)
            for s in own
        ]
        schedule = lines["load"](stages, nn.functional.mse_loss, folder / name)
        losses = []
        schedule.step(*([x] if 0 in own else []), target=target if len(placed) - 1 in own else None, losses=losses)
        gradients = {s: [p.grad.tolist() for p in modules[s].parameters()] for s in own}
        queue.put((name, gradients, [float(loss) for loss in losses]))
    dist.barrier()
    dist.destroy_process_group()


def trained(folder, schedule):
    """By file: the gradients of every stage, and the losses."""
    for name, text in export(ExportSpec(schedule)).files.items():
        (folder / name).write_text(text)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = [context.Process(target=train, args=(rank, folder, queue)) for rank in range(schedule.num_ranks)]
    for process in ranks:
        process.start()
    found = {name: ({}, []) for name in FILES}
    try:
        for _ in range(schedule.num_ranks * len(FILES)):
            name, gradients, losses = queue.get(timeout=30)
            found[name][0].update(gradients)
            found[name][1].extend(losses)
    finally:
        for process in ranks:
            process.join(5)
            process.kill()
    return found


@pytest.mark.parametrize("function", ORDERS, ids=lambda function: function.__name__)
def test_torch_trains_with_either_file_and_gets_one_devices_gradients(function, tmp_path):
    schedule = function(2, 4)

    found = trained(tmp_path, schedule)

    gradients, losses = one_device(schedule.num_stages, 4)
    for name in FILES:
        by_stage, told = found[name]
        assert sorted(by_stage) == list(range(schedule.num_stages))
        for stage, expected in enumerate(gradients):
            for own, gradient in zip(by_stage[stage], expected, strict=True):
                torch.testing.assert_close(torch.tensor(own, dtype=torch.float64), gradient, rtol=1e-12, atol=1e-12)
        assert sorted(told) == pytest.approx(sorted(losses))


def test_messages_that_the_author_wrote_stay_where_they_are():
    schedule = from_csv(zoo.file("early_receives"))

    assert export(ExportSpec(schedule)).files["compute_comms.csv"].startswith(schedule.to_csv().splitlines()[0][:40])
    assert "SEND" not in export(ExportSpec(schedule)).files["compute_only.csv"]


def test_load_py_says_where_stages_are_and_which_modules_they_run(tmp_path):
    schedule = Schedule.from_orders([["0F0", "2F0", "2B0", "0B0"], ["1F0", "1B0"]], "mine")
    (tmp_path / "load.py").write_text(
        export(ExportSpec(schedule, modules=(("a",), ("b", "c"), ("d",)))).files["load.py"]
    )

    lines = runpy.run_path(str(tmp_path / "load.py"))

    assert lines["__doc__"].startswith("mine: 3 stages on 2 ranks, 1 microbatch.")
    assert lines["STAGE_TO_RANK"] == [0, 1, 0]
    assert lines["MODULES"] == [["a"], ["b", "c"], ["d"]]


def test_load_py_says_why_modules_are_unknown():
    text = export(ExportSpec(one_f_one_b(2, 4), unnamed="nobody built the model")).files["load.py"]

    assert "MODULES = None  # of each stage; unknown: nobody built the model" in text
