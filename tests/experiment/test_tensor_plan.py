"""The key ``model.tp``: lists of patterns, or one line that says what is wrong with them."""

from __future__ import annotations

import pytest

from pipezoo.errors import ConfigError
from pipezoo.experiment.tensor_plan import TensorPlan, plan_of


def test_a_plan_is_patterns_by_kind():
    plan = plan_of({"columns": ["*.up", "*.qkv"], "rows": "*.down", "packed": {"3": ["*.qkv"]}, "heads": None})
    assert plan == TensorPlan(columns=("*.up", "*.qkv"), rows=("*.down",), packed={3: ("*.qkv",)})
    assert plan.told() == {"columns": ["*.up", "*.qkv"], "rows": ["*.down"], "packed": {"3": ["*.qkv"]}}


@pytest.mark.parametrize("node", [None, {}, {"heads": ["config.heads"]}, {"columns": []}])
def test_a_plan_that_cuts_nothing_is_none(node):
    assert not plan_of(node)


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ({"column": ["a"]}, r"model.tp.column=\[a\]: unknown key \(did you mean columns\?\); valid: columns, gathered"),
        ({"columns": 3}, "model.tp.columns=3: must be patterns of names; valid: "),
        ({"rows": [""]}, r"model.tp.rows=\[''\]: must be patterns of names"),
        ({"packed": ["a"]}, r"model.tp.packed=\[a\]: must be patterns by the number of layers in one"),
        ({"packed": {1: ["a"]}}, "model.tp.packed=1: must be an int >= 2"),
        ({"packed": {"two": ["a"]}}, "model.tp.packed=two: must be an int >= 2"),
        ({"packed": {2: 5}}, "model.tp.packed.2=5: must be patterns of names"),
        ({"sequence": ["a"]}, r"model.tp.sequence=\[a\]: cuts the sequence .* with wrong gradients and no error"),
        ("all", "model.tp=all: must be lists of patterns"),
    ],
)
def test_what_is_no_plan_is_one_line(node, line):
    with pytest.raises(ConfigError, match=line) as refused:
        plan_of(node)
    assert "\n" not in str(refused.value)
