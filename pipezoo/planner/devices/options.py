"""``plan=devices``: what is to be trained, on how many devices, in how much memory, and what may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.planner.devices.memory import DP_WITH, States
from pipezoo.planner.devices.transformer import Transformer
from pipezoo.planner.options import bytes_of
from pipezoo.schedules import ZOO
from pipezoo.topology.placement import AXES
from pipezoo.validators import check_bool, check_int, check_number, check_word

RECOMPUTE = ("none", "full")
SCHEDULES = ("1f1b", "interleaved_1f1b", "zb_h1", "zbv", "v_half")


@dataclass(frozen=True)
class DeviceOptions:
    """The arguments of ``conf/plan/devices.yaml``.

    Args:
        devices: how many there are.
        transformer: sizes of the model, by the names of :class:`Transformer`.
        global_batch: rows of a step, of all replicas.
        memory: bytes that a device may hold: a number or text like ``80GB``; None: those of the topology's device.
        reserve: share of it that is left to the runtime.
        precision, optimizer, float32_gradients: see :class:`States`.
        pp, dp, tp: which sizes may be planned; None: all that go up.
        rows: rows of a microbatch that may be planned.
        schedules: by their names on the command line.
        stages_per_rank: which numbers.
        recompute: ``none``, ``full`` (each block keeps its input alone).
        dp_with: ``replicate`` (each replica has all states), ``fsdp`` (states are cut over the replicas).
        orders: of the grid on the nodes, each as ``mesh.order``.
        sequence_parallel: whether norms and residuals are cut along the sequence over the shards.
        tp_overlap: share of the sums over shards that is hidden behind products.
        dp_overlap: share of the sums of gradients that is hidden behind the backward.
        top: rows of the table on the terminal.

    Raises:
        ArgumentError: a value out of range, by name.
    """

    devices: int
    transformer: Mapping[str, object]
    global_batch: int
    memory: float | str | None = None
    reserve: float = 0.1
    precision: str = "bf16_master"
    optimizer: str = "adamw"
    float32_gradients: bool = True
    pp: tuple[int, ...] | None = None
    dp: tuple[int, ...] | None = None
    tp: tuple[int, ...] | None = None
    rows: tuple[int, ...] = (1, 2, 4)
    schedules: tuple[str, ...] = SCHEDULES
    stages_per_rank: tuple[int, ...] = (1, 2, 4)
    recompute: tuple[str, ...] = RECOMPUTE
    dp_with: tuple[str, ...] = DP_WITH
    orders: tuple[tuple[str, ...], ...] = (("pp", "dp", "tp"), ("dp", "pp", "tp"))
    sequence_parallel: bool = True
    tp_overlap: float = 0.0
    dp_overlap: float = 0.5
    top: int = 10
    model: Transformer = field(init=False)
    states: States = field(init=False)

    def __post_init__(self) -> None:
        for name in ("devices", "global_batch", "top"):
            check_int(name, getattr(self, name), 1)
        object.__setattr__(self, "model", _model(self.transformer))
        object.__setattr__(self, "states", States(self.precision, self.optimizer, self.float32_gradients))
        check_bool("sequence_parallel", self.sequence_parallel)
        for name in ("reserve", "tp_overlap", "dp_overlap"):
            if check_number(name, getattr(self, name)) > 1 or (name == "reserve" and self.reserve == 1):
                raise ArgumentError(name, getattr(self, name), "must be a number in 0..1")
        if self.memory is not None:
            bytes_of("memory", self.memory)
        self._check_lists()
        self._check_grid()

    def _check_lists(self) -> None:
        for name in ("pp", "dp", "tp", "rows", "stages_per_rank"):
            for count in self._some(name) or ():
                check_int(name, count, 1)
        for name, words in (("schedules", ZOO.names()), ("recompute", RECOMPUTE), ("dp_with", DP_WITH)):
            for word in self._some(name) or ():
                check_word(name, word, words)
        for order in self._some("orders") or ():
            if not isinstance(order, (list, tuple)) or sorted(map(str, order)) != sorted(AXES):
                raise ArgumentError("orders", order, "each must name pp, dp and tp once", "[[pp,dp,tp],[dp,pp,tp]]")
        object.__setattr__(self, "orders", tuple(map(tuple, self.orders)))

    def _some(self, name: str) -> tuple[object, ...] | None:
        values = getattr(self, name)
        if values is not None and (isinstance(values, str) or not values):
            raise ArgumentError(name, values, "must be a list with at least one entry")
        return values  # type: ignore[no-any-return]

    def _check_grid(self) -> None:
        """Sizes that are all given must multiply to the devices."""
        if self.pp and self.dp and self.tp:
            products = sorted({pp * dp * tp for pp in self.pp for dp in self.dp for tp in self.tp})
            if self.devices not in products:
                sizes = " x ".join(f"{name}={_choices(getattr(self, name))}" for name in AXES)
                raise ArgumentError("devices", self.devices, f"{sizes} is {_choices(products)}", products)

    def limit(self, of_device: float) -> float:
        """Bytes that a plan may fill."""
        memory = of_device if self.memory is None else bytes_of("memory", self.memory)
        return memory * (1 - self.reserve)


def _choices(values: object) -> str:
    return " or ".join(map(str, values))  # type: ignore[call-overload]


def _model(sizes: object) -> Transformer:
    if not isinstance(sizes, Mapping):
        raise ArgumentError(
            "transformer", sizes, "must have the sizes of a transformer, {layers: 80, hidden: 8192 ...}"
        )
    known = {name for name, one in Transformer.__dataclass_fields__.items() if one.init}
    needed = [name for name in ("layers", "hidden", "heads", "ffn", "vocabulary", "sequence") if name not in sizes]
    for name in sizes:
        if name not in known:
            raise ArgumentError(f"transformer.{name}", sizes[name], "no such key", sorted(known))
    if needed:
        raise ArgumentError(f"transformer.{needed[0]}", MISSING, "is missing")
    try:
        return Transformer(**sizes)  # type: ignore[arg-type]
    except ArgumentError as error:
        raise error.inside("transformer") from None
