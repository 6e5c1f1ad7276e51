"""Where a model that is a list of equal modules may be cut, in torch's words."""

from __future__ import annotations

from typing import Any


class CutBeforeEach:
    """``split_spec``: a cut before every module of a list but the first; a model may set its own in its place.

    Args:
        modules: the attribute that holds the list.
    """

    def __init__(self, modules: str) -> None:
        self._modules = modules

    def __get__(self, model: Any, owner: type) -> dict[str, Any]:
        from torch.distributed.pipelining import SplitPoint  # a second to import, for who asks

        count = len(getattr(model, self._modules))
        return {f"{self._modules}.{i}": SplitPoint.BEGINNING for i in range(1, count)}
