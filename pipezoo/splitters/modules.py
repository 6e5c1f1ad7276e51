"""Cut between modules, listed by name per stage as trainers write them; nothing is traced.

A model that is a chain of modules, each fed with what the one before returns, is cut between any two of them:

    children   embedding   blocks.0  blocks.1   blocks.2   norm  head       (ModuleLists and Sequentials opened)
    stages    [embedding,  blocks.0][blocks.1,  blocks.2] [norm, head]

That the model is such a chain is not taken on trust: the stages, run one after the other on the example, have to
give the model's own output bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from torch import Tensor, nn

from pipezoo.errors import ArgumentError
from pipezoo.splitters._chain import check_covered, stages_of
from pipezoo.splitters._names import chain_of, find_module, opened_names
from pipezoo.splitters._partition import group_evenly


def split(
    model: nn.Module,
    num_stages: int | None,
    example: tuple[Tensor, ...],
    modules: Sequence[Sequence[str]] | None = None,
) -> list[nn.Module]:
    """Stage modules of `model`, each a chain of its modules.

    Args:
        model: a chain of modules; it is not changed, and its modules are those of the stages.
        num_stages: how many stages; fewer than `modules` lists joins neighbours evenly. None: as many as `modules`
            lists, else 2.
        example: one microbatch of positional inputs. The first module takes all of them if that is what reproduces
            the model's output, else the first one alone; the stage takes them all either way.
        modules: names of modules per stage. None: the children of the model, dealt evenly.

    Raises ValueError when a name is unknown, there are too few modules, a parameter belongs to none of them, or the
    model is not their chain; the text says which splitter fits.
    """
    units = _units(model, modules)
    check_covered(model, list(chain(*units)))
    what = "the model has {} module(s) in a row" if modules is None else "modules lists {} stage(s)"
    if num_stages is None:
        num_stages = len(units) if modules is not None else min(2, len(units))
    if not 1 <= num_stages <= len(units):
        raise ArgumentError("num_stages", num_stages, what.format(len(units)), f"1..{len(units)}")
    grouped = [list(chain(*(units[i] for i in group))) for group in group_evenly(len(units), num_stages)]
    return stages_of(model, grouped, example)


def _units(model: nn.Module, modules: Sequence[Sequence[str]] | None) -> list[list[str]]:
    """Names of modules that stay together, containers opened: one child each, or one list of the user's each."""
    if modules is None:
        return [[name] for name in chain_of(model)]
    units = []
    for stage, names in enumerate(modules):
        if isinstance(names, str) or not names:
            raise ArgumentError(f"modules[{stage}]", names, "must be a list of module names")
        for name in names:
            find_module(model, name, f"modules[{stage}]")
        units.append([opened for name in names for opened in opened_names(model, name)])
    return units
