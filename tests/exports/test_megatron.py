"""Megatron's arguments, their layout read back by the rules of its documentation."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from pipezoo.exports.megatron import megatron
from pipezoo.exports.spec import ExportSpec
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.grouped_interleaved_1f1b import grouped_interleaved_1f1b
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv


def model(*layers):
    """Names of the modules of every stage, with so many blocks on each."""
    names, count = [], 0
    for number in layers:
        names.append([f"blocks.{count + i}" for i in range(number)])
        count += number
    names[0].insert(0, "embedding")
    names[-1] += ["norm", "head"]
    return {"modules": tuple(map(tuple, names)), "blocks": tuple(f"blocks.{i}" for i in range(count))}


def arguments(spec):
    """What bash makes of the array."""
    script = megatron(spec).files["arguments.sh"] + '\nprintf "%s\\n" "${PIPELINE_ARGS[@]}"'
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    return dict(zip(words[::2], words[1::2], strict=True))


def stages(layout):
    """The stages of a layout: ``t*3`` is ``ttt``."""
    return re.sub(r"(.)\*(\d+)", lambda match: match[1] * int(match[2]), layout).split("|")


def test_one_stage_on_every_rank():
    found = arguments(ExportSpec(one_f_one_b(4, 8), rows=2, **model(1, 3, 3, 1)))

    assert found == {
        "--num-layers": "8",
        "--pipeline-model-parallel-size": "4",
        "--pipeline-model-parallel-layout": "Et|ttt|ttt|tL",
        "--micro-batch-size": "2",
        "--global-batch-size": "16",
    }


def test_several_stages_go_round_the_ranks_in_groups_of_microbatches():
    found = arguments(ExportSpec(interleaved_1f1b(2, 8), **model(1, 6, 2, 1)))

    assert found == {
        "--num-layers": "10",
        "--pipeline-model-parallel-size": "2",
        "--pipeline-model-parallel-layout": "Et|t*6|tt|tL",
        "--microbatch-group-size-per-virtual-pipeline-stage": "2",
    }
    assert stages("Et|t*6|tt|tL") == ["Et", "tttttt", "tt", "tL"]


@pytest.mark.parametrize("group", [2, 3, 4])
def test_the_size_of_the_groups_is_that_of_the_order(group):
    schedule = grouped_interleaved_1f1b(2, 12, 2, group)

    found = arguments(ExportSpec(schedule, **model(1, 1, 1, 1)))

    assert found["--microbatch-group-size-per-virtual-pipeline-stage"] == str(group)


def test_an_order_counts_whatever_its_name():
    file = Schedule.from_orders(one_f_one_b(2, 4).order, "mine")

    assert "--pipeline-model-parallel-layout" in arguments(ExportSpec(file, **model(2, 2)))


def test_equal_stages_can_be_said_shorter():
    text = megatron(ExportSpec(interleaved_1f1b(2, 8), **model(2, 2, 2, 2))).files["arguments.sh"]

    assert "# every stage has as many layers: in place of the layout, --num-layers-per-virtual-pipeline-stage 2" in text
    assert "in place of" not in megatron(ExportSpec(one_f_one_b(2, 8), **model(1, 3))).files["arguments.sh"]


def test_without_a_model_there_is_no_layout_and_that_is_said():
    export = megatron(ExportSpec(interleaved_1f1b(2, 8), unnamed="nobody built the model"))

    assert export.notes == ("no layout: nobody built the model",)
    words = shlex.split(export.files["arguments.sh"], comments=True)
    assert words[1:5] == [
        "--pipeline-model-parallel-size",
        "2",
        "--num-virtual-stages-per-pipeline-rank",
        "2",
    ]


LOOSE = model(1, 1, 1, 1)["modules"]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (ExportSpec(zbv(2, 4), **model(1, 1, 1, 1)), "Megatron places stage s on rank s % 2, and zbv does not"),
        (ExportSpec(gpipe(2, 4), **model(1, 1)), "gpipe is another order; valid: schedule=1f1b, interleaved_1f1b"),
        (ExportSpec(one_f_one_b(1, 4), **model(1)), "a pipeline of one rank has no layout; valid: ranks >= 2"),
        (ExportSpec(one_f_one_b(4, 4), modules=LOOSE), "the model is no stack of equal blocks"),
        (
            ExportSpec(one_f_one_b(2, 4), modules=(("a.0",), ("a.1",)), blocks=("a.0", "a.1")),
            "nothing before its equal blocks, no embedding",
        ),
        (
            ExportSpec(one_f_one_b(2, 4), modules=(("e", "a.0"), ("a.1",)), blocks=("a.0", "a.1")),
            "nothing after its equal blocks, no head",
        ),
        (
            ExportSpec(one_f_one_b(2, 4), modules=(("e", "a.0", "norm"), ("head",)), blocks=("a.0",)),
            r"norm, head lie on several stages, and Megatron keeps them on one \(L\)",
        ),
        (
            ExportSpec(one_f_one_b(2, 4), modules=(("e", "a.0", "x"), ("a.1", "h")), blocks=("a.0", "a.1")),
            "x stands between the equal blocks",
        ),
    ],
)
def test_what_megatron_has_not_is_refused_with_the_reason(spec, why):
    with pytest.raises(ValueError, match=why):
        megatron(spec)
