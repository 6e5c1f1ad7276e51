"""Which layers a plan cuts, and what it cannot: checked on the model, tried on its stages, before a process starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from pipezoo.errors import ConfigError
from pipezoo.experiment.tensor_plan import plan_of
from pipezoo.models import GPT, MultiMLP
from pipezoo.runtime.draws import DRAWING, Drawing
from pipezoo.runtime.tensor_parallel import Cut, Cuts, cuts_of
from pipezoo.runtime.try_tensor_parallel import try_cuts
from pipezoo.runtime.whole import reordered
from pipezoo.splitters import modules
from pipezoo.splitters._addresses import write_addresses
from tests.support.configs import compose

IDS = torch.zeros(2, 4, dtype=torch.long)
ROWS = torch.randn(2, 8)


def plan(**changes: Any) -> Any:
    own = {"columns": ["layers.*.net1"], "rows": ["layers.*.net2"]}
    return plan_of({**own, **changes})


def gpt(width: int = 8, heads: int = 2, **more: Any) -> GPT:
    return GPT(vocab_size=16, width=width, depth=2, heads=heads, context=4, **more)


def test_layers_are_found_by_pattern():
    assert cuts_of(plan(), MultiMLP(8, 2), 2).layers == {
        "layers.0.net1": Cut("columns"),
        "layers.1.net1": Cut("columns"),
        "layers.0.net2": Cut("rows"),
        "layers.1.net2": Cut("rows"),
    }


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"columns": ["layer.*.net1"]},
            r"columns=layer.\*.net1: fits no module of MultiMLP \(did you mean layers.\*.net1",
        ),
        ({"columns": ["layers.0"]}, "layers.0 is a MLPModule, and only a layer can be cut; valid: nn.Linear, nn.Embed"),
        ({"rows": ["layers.*.net?"]}, "rows=layers.0.net1: is cut in columns as well"),
        ({"packed": {2: ["*.net2"]}}, r"packed.2=\*.net2: is not in columns, and so cut in any order"),
        ({"columns": ["*.net1"], "packed": {3: ["*.net1"]}, "gathered": ["*.net1"]}, "is cut in columns as well"),
        ({"packed": {2: ["net"]}}, "packed.2=net: fits no layer in columns"),
        ({"packed": {3: ["*.net1"]}}, "which mesh.tp=2 times 3 packed layers does not divide"),
        ({"heads": ["layers.0.heads"]}, "heads=layers.0.heads: MultiMLP has no such attribute"),
        ({"heads": ["layers.0.net1.bias"]}, "layers.0.net1.bias is .* valid: attributes that are numbers of heads"),
        ({"heads": ["depth"]}, "heads=depth: MultiMLP has no such attribute"),
    ],
)
def test_a_plan_that_does_not_fit_the_model_is_one_line(given, line):
    with pytest.raises(ConfigError, match=f"model.tp.*{line}"):
        cuts_of(plan(**given), MultiMLP(8, 2), 2)


def test_a_number_that_is_not_divided_is_said_with_those_that_divide_it():
    with pytest.raises(
        ConfigError, match=r"layers.0.net1: its weight has 9 .* mesh.tp=2 does not divide; valid: mesh.tp=1, 3"
    ):
        cuts_of(plan(), MultiMLP(9, 2), 2)
    heads = plan_of({"columns": ["*.qkv"], "packed": {3: ["*.qkv"]}, "heads": ["blocks.*.attention.heads"]})
    with pytest.raises(
        ConfigError, match=r"blocks.0.attention.heads is 3, which mesh.tp=2 does not divide; valid: mesh.tp=1, 3"
    ):
        cuts_of(heads, gpt(width=12, heads=3), 2)


def test_no_plan_is_said_with_the_key_that_gives_one():
    with pytest.raises(
        ConfigError, match=r"mesh.tp=2: the model says nothing .* valid: mesh.tp=1, or model.tp.columns"
    ):
        cuts_of(plan_of(None), MultiMLP(8, 2), 2)


def test_a_tied_weight_is_cut_under_all_of_its_names_or_none():
    assert set(cuts_of(plan_of({"rows": ["embedding.token"], "gathered": ["head"]}), gpt(tied=True), 2).layers)
    with pytest.raises(ConfigError, match=r"head.weight is embedding.token.weight too, which is not cut so"):
        cuts_of(plan_of({"gathered": ["head"]}), gpt(tied=True), 2)
    cuts_of(plan_of({"gathered": ["head"]}), gpt(), 2)


def test_rows_of_packed_layers_come_in_the_order_of_the_processes():
    rows = torch.tensor([[0], [1], [10], [11], [20], [21]])
    mine = reordered(rows, 3, 2)
    assert mine.flatten().tolist() == [0, 10, 20, 1, 11, 21]
    assert torch.equal(reordered(mine, 2, 3), rows)


def tried(plan_: Any, model: nn.Module, example: torch.Tensor, names: Any = None, drawing: Any = None) -> Cuts:
    write_addresses(model)
    stages = modules.split(model, 2, (example,), names)
    return try_cuts(cuts_of(plan_, model, 2), stages, (example,), drawing)


@pytest.mark.parametrize("name", ["gpt", "multi_mlp"])
def test_the_plans_of_conf_can_be_cut(name):
    model, example = {"gpt": (gpt(), IDS), "multi_mlp": (MultiMLP(8, 2), ROWS)}[name]
    tried(plan_of(OmegaConf.to_container(compose([f"model={name}"])[0].model.tp)), model, example)


def test_columns_without_rows_fail_where_they_meet_the_next_layer():
    with pytest.raises(
        ConfigError, match=r"mesh.tp=2: a forward with parts of the layers fails behind blocks.0.up: Run"
    ):
        tried(plan_of({"columns": ["blocks.*.up"]}), gpt(), IDS)


def test_an_output_in_parts_is_refused():
    with pytest.raises(
        ConfigError, match=r"the model's output is \[\(2, 4, 8\)\], a part of .*valid: model.tp.gathered"
    ):
        tried(plan_of({"columns": ["head"]}), gpt(), IDS)


def test_a_boundary_between_columns_and_rows_is_refused():
    chain = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.raises(ConfigError, match=r"what stage 0 hands on is \[\(2, 4\)\], a part of \[\(2, 8\)\]"):
        tried(plan_of({"columns": ["0"], "rows": ["1"]}), chain, ROWS)


class Dropping(nn.Module):
    """Drops between columns and rows, or behind them."""

    def __init__(self, between: bool) -> None:
        super().__init__()
        self.between, self.up, self.down, self.last = between, nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        h = self.down(F.dropout(h, 0.5) if self.between else h)
        return self.last(h if self.between else F.dropout(h, 0.5))


@pytest.mark.parametrize("between", [True, False])
def test_drawing_for_parts_is_refused_and_for_whole_values_is_not(between):
    model = nn.Sequential(Dropping(between), nn.Linear(8, 8))
    given = plan_of({"columns": ["0.up"], "rows": ["0.down"]}), model, ROWS, None, Drawing((), DRAWING, ())
    if not between:
        tried(*given)
        return
    with pytest.raises(ConfigError, match=r"dropout behind 0.up draws for parts of the features"):
        tried(*given)


class Scaling(nn.Module):
    """A weight of one number works on parts, and on a whole value too where it is asked to."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.twice, self.up, self.down, self.scale = (
            twice,
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Parameter(torch.ones(1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(self.up(x) * self.scale)
        return y * self.scale if self.twice else y


def test_a_whole_parameter_that_works_on_parts_is_known() -> None:
    plan_ = plan_of({"columns": ["0.up"], "rows": ["0.down"]})
    assert tried(plan_, nn.Sequential(Scaling(False), nn.Linear(8, 8)), ROWS).on_parts == {"0.scale"}
    with pytest.raises(ConfigError, match=r"mesh.tp=2: 0.scale works on parts and on whole values, too"):
        tried(plan_, nn.Sequential(Scaling(True), nn.Linear(8, 8)), ROWS)


class Adding(nn.Module):
    """Adds what one layer has in whole to what another has in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.shift, self.down = nn.Linear(8, 8), nn.Linear(8, 1), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x) + self.shift(x))


def test_a_whole_value_that_learns_beside_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"add behind 0.up takes a whole value of \(2, 1\) beside parts"):
        tried(plan_of({"columns": ["0.up"], "rows": ["0.down"]}), nn.Sequential(Adding(), nn.Linear(8, 8)), ROWS)
