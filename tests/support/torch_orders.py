"""What torch's own schedule classes run on every rank, without a process group: their stages are stubs."""

from __future__ import annotations

from types import SimpleNamespace

import torch.distributed.pipelining.schedules as torch_schedules


def stub(num_ranks, num_stages, stage=0):
    return SimpleNamespace(
        group_size=num_ranks, group_rank=0, num_stages=num_stages, stage_index=stage, submod=None, has_backward=True
    )


def planned(name, num_ranks, num_microbatches, stages_per_rank, monkeypatch):
    """The orders that a multi-stage class plans, idle entries dropped. Raises what the class raises."""
    runtime = torch_schedules._PipelineScheduleRuntime
    # torch's lowering is quadratic; the plan is complete and validated before it
    monkeypatch.setattr(runtime, "_prepare_schedule_with_comms", runtime._validate_and_set_stage_mapping)
    stages = [stub(num_ranks, num_ranks * stages_per_rank) for _ in range(stages_per_rank)]
    plan = torch_schedules.get_schedule_class(name)(stages, num_microbatches).pipeline_order
    return [[str(action) for action in plan[rank] if action is not None] for rank in range(num_ranks)]


class RecordingStage:
    """A stage that notes what a single-stage schedule calls on it, and neither computes nor sends anything."""

    is_first = is_last = has_backward = False

    def __init__(self, num_ranks, stage):
        self.num_stages = self.group_size = num_ranks
        self.stage_index = self.group_rank = stage
        self.submod = None
        self.log = []

    def get_fwd_recv_ops(self, microbatch):
        return []

    get_fwd_send_ops = get_bwd_recv_ops = get_bwd_send_ops = get_fwd_recv_ops

    def forward_one_chunk(self, microbatch, *args, **kwargs):
        self.log.append(f"{self.stage_index}F{microbatch}")

    def backward_one_chunk(self, microbatch, **kwargs):
        self.log.append(f"{self.stage_index}B{microbatch}")

    def perform_reduce_grad(self, *args):
        pass


def executed(name, num_ranks, num_microbatches, monkeypatch):
    """The orders in which a single-stage class really calls its stage. Raises what the class raises."""
    monkeypatch.setattr(torch_schedules.PipelineScheduleSingle, "_initialize_stage", lambda *args: None)
    stages = [RecordingStage(num_ranks, rank) for rank in range(num_ranks)]
    for stage in stages:
        schedule = torch_schedules.get_schedule_class(name)(stage, num_microbatches)
        schedule._step_microbatches([()] * num_microbatches, [{}] * num_microbatches)
    return [stage.log for stage in stages]
