"""The modules of a model that a replay does not cut, and which of them may be opened when more places are wanted.

model                                  atoms
  embed                                embed
  encoder                              opened: it holds a stack
    layers: ModuleList                 opened
      0: Block(attention, mlp)         encoder.layers.0       opened where stages outnumber places, or by split.at
      1: Block(attention, mlp)         encoder.layers.1
    norm                               encoder.norm
  head                                 head
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import nn

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
OF_TORCH = (nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder)
OF_TORCH_TOO = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def atoms_of(model: nn.Module, opened: Collection[str] = ()) -> list[str]:
    """Names of modules that together hold everything that the model's modules hold, none inside another.

    Args:
        opened: names of modules that are no atoms themselves, but their children are.
    """
    return list(_visit(model, "", opened, False, set()))


def _visit(module: nn.Module, prefix: str, opened: Collection[str], inside: bool, seen: set[int]) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if id(child) in seen:
            continue
        seen.add(id(child))
        if isinstance(child, CONTAINERS):
            yield from _visit(child, f"{path}.", opened, True, seen)
        elif path in opened or (not inside and _holds_a_stack(child)):
            yield from _visit(child, f"{path}.", opened, False, seen)
        else:
            yield path


def _holds_a_stack(module: nn.Module) -> bool:
    return can_open(module) and any(isinstance(part, CONTAINERS) and len(part) > 1 for part in module.modules())


def can_open(module: nn.Module) -> bool:
    """Whether a module has modules of its own that hold parameters, and calls them as modules.

    Those of torch.nn use their children's parameters without calling them, but for the transformers.
    """
    ours = not type(module).__module__.startswith("torch.nn.modules")
    if not (ours or isinstance(module, (*CONTAINERS, *OF_TORCH, *OF_TORCH_TOO))):
        return False
    return any(next(child.parameters(), None) is not None for child in module.children())


def above(name: str) -> list[str]:
    """The names of all that a module is inside of, outermost first: a.b.c -> a, a.b."""
    parts = name.split(".")
    return [".".join(parts[:size]) for size in range(1, len(parts))]
