"""torch's runtime reads the files that pipezoo writes, validates them, and gets the same order."""

from __future__ import annotations

import pytest
import torch.distributed.pipelining.schedules as torch_schedules

from pipezoo.schedule.action import Action
from pipezoo.schedule.lowering import with_messages
from pipezoo.schedules.from_csv import from_csv
from tests.schedule.test_action import SPELLINGS
from tests.support import zoo
from tests.support.torch_orders import stub


def schedule_of(name):
    return from_csv(zoo.file(name)).compute_only() if name in zoo.FILES else zoo.function(name)(4, 8)


def read(schedule, path, form):
    path.write_text(schedule.to_csv())
    stages = [stub(schedule.num_ranks, schedule.num_stages, stage) for stage in schedule.stages_of(0)]
    runtime = torch_schedules._PipelineScheduleRuntime(stages, schedule.num_microbatches)
    runtime._load_csv(str(path), format=form)
    return runtime


@pytest.mark.parametrize("name", [*zoo.GENERATED, *zoo.FILES])
def test_computations_only(name, tmp_path):
    schedule = schedule_of(name)
    runtime = read(schedule, tmp_path / "order.csv", "compute_only")
    for rank, order in enumerate(schedule.order):
        assert [str(action) for action in runtime.pipeline_order[rank]] == [str(action) for action in order]
    assert runtime.stage_index_to_group_rank == dict(enumerate(schedule.stage_to_rank))


@pytest.mark.parametrize("name", [*zoo.GENERATED, *zoo.FILES])
def test_with_messages(name, tmp_path):
    lowered = with_messages(schedule_of(name))
    runtime = read(lowered, tmp_path / "order.csv", "compute_comms")
    for rank, order in enumerate(lowered.order):
        assert [str(action) for action in runtime.pipeline_order_with_comms[rank]] == [str(a) for a in order]
    simulated = torch_schedules._simulate_comms_compute(  # raises where an order does not end; knows no reduction
        {
            rank: [action for action in actions if action.computation_type.name != "REDUCE_GRAD"]
            for rank, actions in runtime.pipeline_order_with_comms.items()
        },
        stage_to_rank=lambda stage: lowered.stage_to_rank[stage],
        num_stages=lowered.num_stages,
    )
    assert len(simulated) == lowered.num_ranks


@pytest.mark.parametrize("name", ["interleaved_1f1b", "dualpipev", "v_shape"])
def test_what_torch_lowers_is_a_schedule_here(name, tmp_path):
    schedule = schedule_of(name)
    runtime = read(schedule, tmp_path / "order.csv", "compute_only")
    runtime._dump_csv(str(tmp_path / "lowered.csv"), format="compute_comms")
    lowered = from_csv(tmp_path / "lowered.csv")
    assert lowered.has_messages
    assert lowered.compute_only() == schedule


@pytest.mark.parametrize("text", SPELLINGS)
def test_torch_reads_and_writes_an_action_as_we_do(text):
    theirs, ours = torch_schedules._Action.from_str(text), Action.parse(text)
    assert str(theirs) == str(ours)
    assert (theirs.stage_index, theirs.computation_type.name, theirs.microbatch_index) == (
        ours.stage,
        {"F": "FORWARD", "B": "FULL_BACKWARD", "I": "BACKWARD_INPUT", "W": "BACKWARD_WEIGHT"}.get(
            ours.op.name, ours.op.name
        ),
        ours.microbatch,
    )
