"""The plan of conf/model/hf_causal_lm.yaml: it cuts families that are called as Llama is, and says so of others."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from pipezoo.errors import ConfigError
from pipezoo.experiment.tensor_plan import TensorPlan, plan_of
from pipezoo.foreign_import import declare_operators
from pipezoo.models.hf_causal_lm import hf_causal_lm
from pipezoo.runtime.model_output import with_output
from pipezoo.runtime.tensor_parallel import cuts_of
from pipezoo.runtime.try_tensor_parallel import try_cuts
from pipezoo.splitters import replay
from pipezoo.splitters._addresses import write_addresses
from tests.support.configs import compose

declare_operators()  # of a torchvision that another torch was built for
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed: pip install '.[hf]'"
)
SIZES = {"vocab_size": 16, "width": 16, "depth": 2, "heads": 4, "context": 4}
IDS = torch.zeros(2, 4, dtype=torch.long)


@pytest.fixture(scope="module")
def plan() -> TensorPlan:
    return plan_of(OmegaConf.to_container(compose(["model=hf_causal_lm"])[0].model.tp))


@pytest.mark.parametrize(
    ("family", "more"),
    [("llama", {"tied": True}), ("llama", {"config": {"num_key_value_heads": 2}}), ("qwen3", {}), ("mistral", {})],
)
def test_families_that_are_called_as_llama_is_can_be_cut(plan: TensorPlan, family: str, more: dict[str, Any]) -> None:
    model = with_output(hf_causal_lm(family, **SIZES, **more), "logits")
    write_addresses(model)
    cuts = cuts_of(plan, model, 2)
    assert len(cuts.layers) == 2 + 7 * SIZES["depth"]
    tried = try_cuts(cuts, replay.split(model, 2, (IDS,)), (IDS,), None)
    assert len(tried.on_parts) == (2 * SIZES["depth"] if family == "qwen3" else 0)  # its norms of queries and of keys


@pytest.mark.parametrize(
    ("family", "config", "line"),
    [
        ("gpt2", {}, r"model.tp.columns=.*: fits no module of GPT2LMHeadModel.*valid: transformer.wte"),
        ("llama", {"num_key_value_heads": 1}, "config.num_key_value_heads is 1, which mesh.tp=2 does not divide"),
    ],
)
def test_what_the_plan_does_not_fit_is_one_line(
    plan: TensorPlan, family: str, config: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        cuts_of(plan, hf_causal_lm(family, **SIZES, config=config), 2)


def test_keys_that_all_heads_share_are_refused_beside_queries_in_parts() -> None:
    """Each process would have the gradient of its own heads for them, and nobody would say so."""
    model = with_output(hf_causal_lm("llama", **SIZES, config={"num_key_value_heads": 1}), "logits")
    write_addresses(model)
    cuts = cuts_of(plan_of({"columns": ["*.q_proj"], "rows": ["*.o_proj"]}), model, 2)
    with pytest.raises(ConfigError, match=r"takes a whole value of \(2, 1, 4, 4\) beside parts, whose gradient"):
        try_cuts(cuts, replay.split(model, 2, (IDS,)), (IDS,), None)
