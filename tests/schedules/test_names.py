"""``pz.schedules``: the folder's functions as attributes, the words of the command line as items."""

from __future__ import annotations

import importlib
import pickle

import pytest
import yaml

import pipezoo as pz
from pipezoo.errors import ArgumentError
from pipezoo.installed import conf_dir

CHOICES = sorted(path.stem for path in (conf_dir() / "schedule").glob("*.yaml"))


@pytest.mark.parametrize("choice", CHOICES)
def test_an_item_is_what_the_command_line_calls(choice):
    target = yaml.safe_load((conf_dir() / "schedule" / f"{choice}.yaml").read_text())["_target_"]
    module, _, name = target.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    found = pz.schedules[choice]

    assert getattr(found, "func", found) is function


def test_an_attribute_is_the_function_also_after_its_module_was_imported():
    import pipezoo.schedules.zbv
    from pipezoo.schedules.zbv import zbv

    importlib.reload(importlib.import_module("pipezoo.schedules.hanayo"))

    assert pz.schedules.zbv is pipezoo.schedules.zbv is zbv
    assert repr(pz.schedules.zbv(4, 8)) == "Schedule('zbv', 4 ranks, 8 stages, 8 microbatches)"
    assert repr(pz.schedules.hanayo(2, 4)) == "Schedule('hanayo', 2 ranks, 4 stages, 4 microbatches)"


def test_a_file_of_an_order_needs_no_numbers():
    assert repr(pz.schedules["v_shape"]()) == "Schedule('v_shape', 2 ranks, 4 stages, 2 microbatches)"


def test_names_are_those_that_can_be_made_for_any_size():
    assert {"1f1b", "zbv", "gpipe"} < {*pz.schedules.names()} == {*pz.schedules}
    assert "csv" not in pz.schedules.names()
    assert {pz.schedules[name](2, 8).num_ranks for name in pz.schedules} == {2}


def test_a_function_goes_to_another_process():
    assert pickle.loads(pickle.dumps(pz.schedules.zbv)) is pz.schedules.zbv


def test_what_is_not_there_is_told_with_what_was_meant():
    with pytest.raises(ArgumentError, match=r"schedule=1f2b: unknown schedule \(did you mean 1f1b\?\)"):
        pz.schedules["1f2b"]
    with pytest.raises(AttributeError, match=r"unknown schedule \(did you mean zbv\?\)"):
        _ = pz.schedules.zvb
