"""What a run hands out to other trainers."""

from __future__ import annotations

import json
import os

import pytest

from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment
from pipezoo.exports.spec import ExportSpec
from pipezoo.launch import Processes
from pipezoo.results.run_dir import read_result
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.tasks.export import make_exports, write_exports
from tests.tasks.test_simulate import NONE, predicted, schedule


def exporter(name, **arguments):
    return Component("export", name, f"pipezoo.exports.{name}.{name}", arguments, given=("spec",))


def asking(*names):
    parts = dict.fromkeys(("model", "data", "split", "schedule", "optimizer", "loss", "cost", "executor"), NONE)
    exports = tuple(name if isinstance(name, Component) else exporter(name) for name in names)
    return Experiment(task="simulate", launch=Processes(), launch_name="processes", exports=exports, **parts)


GPIPE = ExportSpec(gpipe(2, 4), unnamed="nobody built the model")


def test_every_export_has_a_folder_of_its_own(tmp_path):
    said = []
    exports = make_exports(asking("torch", "torchtitan", "megatron"), ExportSpec(one_f_one_b(2, 4)))

    told = write_exports(exports, tmp_path, said.append)

    assert told["torch"]["files"] == [
        "export/torch/compute_only.csv",
        "export/torch/compute_comms.csv",
        "export/torch/load.py",
    ]
    assert all((tmp_path / file).is_file() for export in told.values() for file in export["files"])
    assert f"export    {tmp_path}/export/torch: compute_only.csv, compute_comms.csv, load.py" in said


def test_one_that_cannot_be_had_is_a_line_beside_those_that_can(tmp_path):
    said = []

    told = write_exports(make_exports(asking("torch", "megatron"), GPIPE), tmp_path, said.append)

    assert told["megatron"]["files"] == []
    assert told["megatron"]["notes"] == [
        "none: Megatron runs 1F1B, interleaved and grouped, and gpipe is another order; "
        "valid: schedule=1f1b, interleaved_1f1b, grouped_interleaved_1f1b"
    ]
    assert f"export    megatron: {told['megatron']['notes'][0]}" in said
    assert not (tmp_path / "export" / "megatron").exists()


def test_nothing_to_be_had_is_an_error_before_the_run_and_a_line_after_it():
    with pytest.raises(
        ConfigError, match=r"^export=megatron: Megatron runs 1F1B, interleaved and grouped, and gpipe is"
    ):
        make_exports(asking("megatron"), GPIPE)

    late = make_exports(asking("megatron"), GPIPE, is_known_early=False)
    assert (late["megatron"].files, len(late["megatron"].notes)) == ({}, 1)


def test_a_wrong_argument_is_an_error_whatever_else_is_asked():
    wrong = Component(
        "export",
        "torchtitan",
        "pipezoo.exports.torchtitan.torchtitan",
        {"rename": {"block": "layers"}},
        given=("spec",),
        sources={"rename": "export.torchtitan.rename"},
    )
    named = ExportSpec(one_f_one_b(2, 4), modules=(("blocks.0",), ("blocks.1",)))

    with pytest.raises(
        ConfigError, match=r"^export.torchtitan.rename.block=layers: unknown module \(did you mean blocks"
    ):
        make_exports(asking("torch", wrong), named)


def test_a_simulation_exports_what_it_can_without_a_model(tmp_path):
    result, said = predicted(
        tmp_path, num_ranks=2, schedule=schedule("zbv"), exports=(exporter("torch"), exporter("torchtitan"))
    )

    assert "no module_fqns_per_model_part: task=simulate builds no model; task=train and task=verify name its" in said
    assert (tmp_path / "export/torchtitan/schedule.csv").read_text() == (tmp_path / "schedule.csv").read_text()
    assert read_result(tmp_path)["export"] == json.loads(json.dumps(result["export"]))


GPT = ("model=gpt", "model.width=16", "model.context=8", "split=modules", "steps=1", "microbatches=2", "stages=2")


def test_a_training_run_exports_the_names_of_its_modules(cli, tmp_path):
    rename = "export.torchtitan.rename={embedding:tok_embeddings,blocks:layers,head:lm_head}"

    ended = cli(*GPT, "verify=false", "export=[torch,torchtitan,megatron]", rename, f"hydra.run.dir={tmp_path}/run")

    assert (ended.code, ended.err) == (0, "")
    folder = tmp_path / "run" / "export"
    assert (
        '["tok_embeddings", "layers.0", "layers.1", "layers.2"]' in (folder / "torchtitan/parallelism.py").read_text()
    )
    assert '--pipeline-model-parallel-layout "Ettt|tL"' in (folder / "megatron/arguments.sh").read_text()
    assert "STAGE_TO_RANK = [0, 1]" in (folder / "torch/load.py").read_text()


def test_a_run_that_could_export_nothing_starts_no_process(cli, tmp_path):
    ended = cli(*GPT, "schedule=gpipe", "export=megatron", "hydra.run.dir=run")

    assert ended.code == 2
    assert ended.error_lines == [
        "error: export=megatron: Megatron runs 1F1B, interleaved and grouped, and gpipe is another order; "
        "valid: schedule=1f1b, interleaved_1f1b, grouped_interleaved_1f1b"
    ]
    assert not os.path.exists(tmp_path / "run" / "metrics.jsonl")


def test_a_cut_inside_a_module_has_no_names_and_says_why(cli, tmp_path):
    words = ("model=example_code", "model.d_hid=8", "steps=1", "microbatches=2", "verify=false", "export=torchtitan")

    ended = cli(*words, f"hydra.run.dir={tmp_path}/run")

    assert ended.code == 0
    assert "torchtitan: no module_fqns_per_model_part: parameter mm_param0 belongs to none of the modules" in ended.out


def test_a_plan_exports_its_winner(cli, tmp_path):
    words = (
        "task=plan",
        "ranks=2",
        "microbatches=4",
        "plan.iterations=0",
        "plan.schedules=[zbv]",
        "plan.stages_per_rank=[2]",
    )

    ended = cli(*words, "plan.search=false", "export=[torchtitan,megatron]", f"hydra.run.dir={tmp_path}/run")

    assert ended.code == 0
    result = read_result(tmp_path / "run")
    assert result["export"]["megatron"]["files"] == []
    assert (tmp_path / "run/export/torchtitan/schedule.csv").read_text() == (tmp_path / "run/schedule.csv").read_text()


def test_an_unknown_trainer_is_refused_with_those_there_are(cli):
    ended = cli("task=simulate", "ranks=2", "export=torchtian")

    assert ended.code == 2
    assert ended.error_lines == [
        "error: export=torchtian: unknown export (did you mean torchtitan?); "
        "valid: dcp, megatron, safetensors, state_dict, torch, torchtitan"
    ]
