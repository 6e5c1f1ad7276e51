from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipezoo.errors import ArgumentError
from pipezoo.installed import conf_dir
from pipezoo.planner.devices.memory import OPTIMIZERS, PRECISIONS, States, rank_memory


@pytest.mark.parametrize(
    ("precision", "optimizer", "float32", "parts"),
    [
        ("bf16_master", "adamw", True, (2, 4, 12)),
        ("bf16_master", "adamw", False, (2, 2, 12)),
        ("bf16_master", "sgd", False, (2, 2, 4)),
        ("fp32", "adamw", False, (4, 4, 8)),
        ("fp32", "sgd_momentum", False, (4, 4, 4)),
        ("bf16", "adamw", False, (6, 4, 8)),
    ],
)
def test_a_parameter_takes_what_its_dtypes_take(precision, optimizer, float32, parts):
    found = rank_memory(1000.0, States(precision, optimizer, float32), 1, activations=7.0)
    assert (found.parameters, found.gradients, found.optimizer) == tuple(1000.0 * part for part in parts)
    assert found.total == 1000.0 * sum(parts) + 7.0


def test_fsdp_cuts_the_states_alone():
    whole, cut = (rank_memory(1000.0, States(), shards) for shards in (1, 8))
    assert (cut.parameters, cut.gradients) == (whole.parameters, whole.gradients)
    assert cut.optimizer == whole.optimizer / 8
    assert next(iter(whole.parts())) == "optimizer"
    assert next(iter(cut.parts())) == "gradients"


def test_precisions_and_optimizers_are_choices_of_the_command_line():
    for group, known in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS)):
        assert set(known) <= {file.stem for file in (conf_dir() / group).glob("*.yaml")}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(1, 1e12), st.integers(1, 64), st.sampled_from([*PRECISIONS]), st.sampled_from([*OPTIMIZERS]))
def test_more_replicas_never_hold_more_and_more_parameters_never_less(count, shards, precision, optimizer):
    states = States(precision, optimizer)
    assert rank_memory(count, states, shards + 1).total <= rank_memory(count, states, shards).total
    assert rank_memory(count, states, shards).total <= rank_memory(2 * count, states, shards).total


@pytest.mark.parametrize(("name", "value"), [("precision", "bf17"), ("optimizer", "adam"), ("float32_gradients", 1)])
def test_other_words_are_refused(name, value):
    with pytest.raises(ArgumentError, match=f"^{name}="):
        States(**{name: value})
