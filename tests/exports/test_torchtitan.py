"""What torchtitan is given, read back as torchtitan would read it."""

from __future__ import annotations

import ast

import pytest

from pipezoo.exports.spec import ExportSpec
from pipezoo.exports.torchtitan import torchtitan
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.hanayo import hanayo
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

MODULES = (("embedding", "blocks.0"), ("blocks.1",), ("blocks.2",), ("blocks.3", "norm", "head"))


def in_toml(spec, **knobs):
    return tomllib.loads(torchtitan(spec, **knobs).files["parallelism.toml"])


def in_python(spec, **knobs):
    """The keyword arguments of the ParallelismConfig that is to be pasted."""
    (statement,) = ast.parse(f"f(\n{torchtitan(spec, **knobs).files['parallelism.py']})").body
    (keyword,) = statement.value.keywords
    assert (keyword.arg, keyword.value.func.id) == ("parallelism", "ParallelismConfig")
    return {argument.arg: ast.literal_eval(argument.value) for argument in keyword.value.keywords}


def test_both_files_say_the_same_in_their_own_keys():
    spec = ExportSpec(interleaved_1f1b(2, 8), rows=4, modules=MODULES)

    assert in_python(spec) == {
        "pipeline_parallel_degree": 2,
        "pipeline_parallel_schedule": "Interleaved1F1B",
        "pipeline_parallel_schedule_csv": "schedule.csv",
        "num_pp_microbatches": 8,
        "module_fqns_per_model_part": list(map(list, MODULES)),
    }
    assert in_toml(spec) == {
        "parallelism": {
            "pipeline_parallel_degree": 2,
            "pipeline_parallel_schedule": "Interleaved1F1B",
            "pipeline_parallel_schedule_csv": "schedule.csv",
            "pipeline_parallel_microbatch_size": 4,
            "module_fqns_per_model_part": list(map(list, MODULES)),
        },
        "training": {"local_batch_size": 32},
    }


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (one_f_one_b(4, 8), "1F1B"),
        (interleaved_1f1b(2, 8, 3), "Interleaved1F1B"),
        (zbv(2, 8), "ZBVZeroBubble"),
        (hanayo(2, 8), "ZBVZeroBubble"),
        (dualpipev(2, 8), "DualPipeV"),
    ],
)
def test_the_schedules_name_stands_for_where_its_stages_are(schedule, name):
    assert in_toml(ExportSpec(schedule, rows=1))["parallelism"]["pipeline_parallel_schedule"] == name


@pytest.mark.parametrize(
    "schedule", [hanayo(2, 4, 4), Schedule.from_orders([["0F0", "2F0", "2B0", "0B0"], ["1F0", "1B0"]])]
)
def test_another_placement_is_refused(schedule):
    with pytest.raises(ValueError, match=f"in a loop or as a V of two on each rank, and {schedule.name} has them on"):
        torchtitan(ExportSpec(schedule))


def test_the_order_is_computations_only(tmp_path):
    told = Schedule.from_orders([["0F0", "0SEND_F0", "0RECV_B0", "0B0"], ["1RECV_F0", "1F0", "1B0", "1SEND_B0"]])

    assert torchtitan(ExportSpec(told)).files["schedule.csv"] == "0F0,0B0\n1F0,1B0\n"


def test_modules_are_called_as_torchtitan_calls_them():
    rename = {"embedding": "tok_embeddings", "blocks": "layers", "head": "lm_head"}

    parts = in_python(ExportSpec(one_f_one_b(4, 8), modules=MODULES), rename=rename)["module_fqns_per_model_part"]

    assert parts == [["tok_embeddings", "layers.0"], ["layers.1"], ["layers.2"], ["layers.3", "norm", "lm_head"]]


def test_a_name_that_the_model_has_not_is_refused():
    with pytest.raises(
        ValueError, match=r"rename.block=layers: unknown module \(did you mean blocks\?\); valid: blocks"
    ):
        torchtitan(ExportSpec(one_f_one_b(4, 8), modules=MODULES), rename={"block": "layers"})


def test_what_is_unknown_is_left_out_and_said():
    export = torchtitan(ExportSpec(interleaved_1f1b(2, 8, 3), unnamed="nobody built the model"))

    assert export.notes == (
        "no module_fqns_per_model_part: nobody built the model",
        "without it torchtitan makes 2 stages a rank, not 3: set it by hand",
        "pipeline_parallel_microbatch_size is 1: no batch was made",
    )
    assert "module_fqns" not in export.files["parallelism.py"] + export.files["parallelism.toml"]
