"""For ``torch.distributed.pipelining``: the order in both formats that torch's schedule runtime reads.

compute_only.csv     0F0,0F1,0B0,0B1                                    torch adds the messages
compute_comms.csv    0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0, ...        as pipezoo places them
load.py              makes the schedule from a file, given the stages of a rank
"""

from __future__ import annotations

from pipezoo.exports.spec import Export, ExportSpec
from pipezoo.schedule.lowering import with_messages

_LOAD = '''"""{sizes}. Written by pipezoo for torch 2.11 to 2.13."""

from pathlib import Path

from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

STAGE_TO_RANK = {placed}
MODULES = {modules}  # of each stage{unnamed}


def load(stages, loss_fn, file=Path(__file__).parent / "compute_only.csv", **arguments):
    """The schedule of one rank, ready for step().

    Args:
        stages: this rank's PipelineStages, in the order of their indices; of {num_stages} in all.
        loss_fn: of output and target of one microbatch; scale_grads=False leaves its scale to you.
        file: compute_only.csv, to which torch adds the messages, or compute_comms.csv, which has them.
    """
    schedule = _PipelineScheduleRuntime(stages, n_microbatches={microbatches}, loss_fn=loss_fn, **arguments)
    schedule._load_csv(str(file), format=Path(file).stem)
    return schedule
'''


def torch(spec: ExportSpec) -> Export:
    """Both files, and the lines of Python that load one of them. Takes every pipeline."""
    schedule = spec.schedule
    load = _LOAD.format(
        sizes=spec.sizes(),
        placed=list(schedule.stage_to_rank),
        modules=None if spec.modules is None else list(map(list, spec.modules)),
        unnamed=f"; unknown: {spec.unnamed}" if spec.unnamed else "",
        num_stages=schedule.num_stages,
        microbatches=schedule.num_microbatches,
    )
    files = {
        "compute_only.csv": schedule.compute_only().to_csv(),
        "compute_comms.csv": with_messages(schedule).to_csv(),
        "load.py": load,
    }
    return Export(files)
