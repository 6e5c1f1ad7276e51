"""Cut a model as it comes: each stage runs the model's own forward; what other stages compute is replaced.

    calls      embed   layers.0   layers.1 | layers.2   layers.3 | norm   head        in the order of one forward
    stage 0     run      run        run    | stop
    stage 1      .        .          h     |   run        run    | stop               . placeholder   h what arrived
    stage 2      .        .          .     |    .          h     |  run    run

Nothing is traced and nothing rewritten: keyword inputs, masks, positions, hooks, activation checkpointing and compiled
blocks stay what they are. What has to cross a cut is read off the autograd graph of one forward: an encoder's output,
a residual, the skip of a U-Net. The cut is proved before it is returned: with placeholders of NaN, the chain of the
stages gives the model's output, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipezoo.splitters._replay_build import stages_of
from pipezoo.splitters._replay_places import cut, recorded
from pipezoo.splitters._weigh import check_measure


def split(
    model: nn.Module,
    num_stages: int | None,
    example: tuple[Tensor, ...],
    at: Sequence[str] | None = None,
    by: str = "flops",
    repeats: int = 5,
) -> list[nn.Module]:
    """Stage modules of ``model``, which hold its own modules and parameters.

    Args:
        model: any eager module whose forward calls the same modules in the same order whatever the data; it is not
            changed.
        num_stages: how many stages; None: as many as ``at`` makes, else 2.
        example: one microbatch of positional inputs.
        at: names of modules, each the first of a stage; fewer stages than they make join neighbours. None: found.
        by: what a stage weighs where places are found: ``parameters`` (their number), ``flops`` (of a forward, matrix
            products and convolutions alone), or ``time`` (median of a forward and a backward, measured here).
        repeats: how often ``time`` measures.

    Raises:
        ValueError: there are too few places, ``at`` names none, or the stages do not reproduce the model; in one line.
    """
    check_measure(by, repeats)
    found = recorded(model, num_stages, example, at, by, repeats)
    groups = cut(model, found, num_stages, at)
    return list(stages_of(model, found, groups, example))
