"""What a person can type wrong: one line that says what, why and what would work, before any process starts."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

from pathlib import Path

import pytest

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from tests.support.configs import compose

WITHOUT_A_MODEL = [
    # the row of the list of faults, the command line, the whole message
    ("1", "batch_size=30 microbatches=4", "batch_size=30: is not divisible by microbatches=4; valid microbatches: 1, 2, 3, 5, 6, 10, 15, 30"),
    ("2", "batch_size=3 microbatches=4", "batch_size=3: is not divisible by microbatches=4; valid microbatches: 1, 3"),
    ("4", "schedule=grouped_interleaved_1f1b ranks=4 microbatches=6", "microbatches=6: groups of 4 leave 2, fewer than the 4 ranks; valid: 4, 8"),
    ("6", "microbatches=0", "microbatches=0: must be an int; valid: >= 1"),
    ("6", "microbatches=-1", "microbatches=-1: must be an int; valid: >= 1"),
    ("6", "microbatches='4'", "microbatches='4': must be an int; valid: >= 1"),
    ("6", "microbatches=2.0", "microbatches=2.0: must be an int; valid: >= 1"),
    ("7", "stages=5 ranks=2 schedule=looped_bfs", "stages=5: is not a multiple of ranks=2; valid: 2, 4, 6, 8 ..."),
    ("8", "stages=4 ranks=2", "stages=4: on ranks=2: 1f1b runs one stage on each rank (interleaved_1f1b and looped_bfs run more); valid: 2"),
    ("9", "stages=6 ranks=2 schedule=zbv", "stages=6: on ranks=2: zbv runs exactly 2 stages on each rank, placed as a V; valid: 4"),
    ("9", "stages=5 schedule=dualpipev", "stages=5: dualpipev puts 2 stages on every rank; valid: 4, 6, 8 ..."),
    ("10", "stages=2 ranks=4", "ranks=4: there are only stages=2; valid: 1, 2"),
    ("-", "stages=4 model.splits=6", "model.splits=6: stages=4 asks for 4 stages (both count stages, not cuts); give one of them; valid: 4"),
    ("-", "steps=0", "steps=0: must be an int; valid: >= 1"),
    ("-", "ranks=0", "ranks=0: must be an int; valid: >= 1"),
    ("-", "seed=-1", "seed=-1: must be an int; valid: >= 0"),
    ("-", "seed=1.5", "seed=1.5: must be an int; valid: >= 0"),
    ("-", "seed=", "seed='': must be an int; valid: >= 0"),
    ("-", "seed=18446744073709551616", "seed=18446744073709551616: is too large; valid: <= 9223372036854775807"),
    ("-", "steps=99999999999999999999", "steps=99999999999999999999: is too large; valid: <= 9223372036854775807"),
    ("-", "stages=99999999999999999999", "stages=99999999999999999999: is too large; valid: <= 9223372036854775807"),
    ("-", "checkpoint.every=1000000000000000000000", "checkpoint.every=1000000000000000000000: is too large; valid: <= 9223372036854775807"),
    ("-", "launch.threads=99999999999", "launch.threads=99999999999: is too large; valid: <= 4096"),
    ("-", "launch=virtual launch.latency=1e308", "launch.latency=1e+308: is too large; valid: <= 1e+100"),
    ("-", "launch=virtual launch.bandwidth=1e-300", "launch.bandwidth=1e-300: is too small; valid: 0, >= 1e-100"),
    ("-", "optimizer.clip=-1", "optimizer.clip=-1: must be a number > 0"),
    ("-", "optimizer.clip=0", "optimizer.clip=0: must be a number > 0"),
    ("-", "optimizer.clip=nan", "optimizer.clip=nan: must be a number > 0"),
    ("-", "optimizer.clip=[1]", "optimizer.clip=[1]: must be a number > 0"),
    ("-", "optimizer.ema=1", "optimizer.ema=1.0: must keep less than all of the average; valid: in [0, 1)"),
    ("-", "optimizer.accumulate=0", "optimizer.accumulate=0: must be an int >= 1"),
    ("-", "optimizer.accumulate=3 steps=10", "steps=10: is not a multiple of optimizer.accumulate=3; valid: 3, 6 ..."),
    ("-", "optimizer.groups=3", "optimizer.groups=3: must be a list; valid: [{names: ['*.bias'], weight_decay: 0}]"),
    ("-", "optimizer.groups=[{lr:1}]", "optimizer.groups[0]={'lr': 1}: selects no parameters; valid: names: ['*.bias'], max_dims: 1"),
    ("-", "optimizer.groups=[{names:x}]", "optimizer.groups[0]={'names': 'x'}: has no option; valid: one of the optimizer, like weight_decay: 0"),
    ("-", "optimizer.groups=[{names:3,lr:1}]", "optimizer.groups[0].names=3: must be patterns of parameter names; valid: ['*.bias', '*norm*']"),
    ("-", "optimizer.groups=[{max_dims:-1,lr:1}]", "optimizer.groups[0].max_dims=-1: must be an int >= 0"),
    ("-", "precision=bf16_master", "precision=bf16_master: does not go with dtype=float32; valid: dtype=bfloat16"),
    ("-", "precision=fp16 precision.growth=0.5", "precision.growth=0.5: must not make the scale smaller; valid: >= 1"),
    ("-", "precision=fp16 precision.start=0", "precision.start=0: must be a number > 0"),
    ("-", "verify=maybe", "verify=maybe: must be true or false; valid: true, false"),
    ("-", "tolerance=-1", "tolerance=-1: must be a number; valid: >= 0"),
    ("-", "tolerance=nan", "tolerance=nan: must be a number; valid: >= 0"),
    ("-", "dtype=float16", "dtype=float16: unknown word (did you mean bfloat16?); valid: bfloat16, float32, float64"),
    ("-", "device=gpu", "device=gpu: unknown word (did you mean cpu?); valid: cpu, cuda"),
    ("-", "weight_grad=modul", "weight_grad=modul: unknown word (did you mean module?); valid: autograd, deferred, module"),
    ("-", "task=trian", "task=trian: unknown word (did you mean train?); valid: plan, simulate, train, verify"),
    ("-", "launch.threads=0", "launch.threads=0: must be an int >= 1"),
    ("-", "launch.emulate=3", "launch.emulate=3: must be true or false; valid: true, false"),
    ("-", "launch.step_timeout=0", "launch.step_timeout=0: must be a number; valid: > 0"),
    ("-", "launch.start_method=frok", "launch.start_method=frok: unknown method (did you mean fork?); valid: fork, spawn"),
    ("-", "launch.thread=1", "launch.thread=1: unknown key (did you mean threads?); valid: emulate, first_step_timeout, start_method, start_timeout, step_timeout, threads"),
    ("-", "+launch.thread=1", "launch.thread=1: unknown key (did you mean threads?); valid: emulate, first_step_timeout, start_method, start_timeout, step_timeout, threads"),
    ("-", "memory=12MB", "memory=12MB: no such key; valid: plan.memory=12MB"),
    ("-", "d_hid=64", "d_hid=64: no such key; valid: data.d_hid=64, model.d_hid=64"),
    ("19", "model.split=6", "model.split=6: unknown key (did you mean splits?); valid: d_hid, output, splits, tp, weights"),
    ("19", "model.d_hid.x=6", "model.d_hid.x=6: model.d_hid has no keys of its own"),
    ("-", "model.splits", "model.splits: has no value; write model.splits=value"),
    ("-", "model.splits=[1", "model.splits=[1: cannot be read (no viable alternative at input '[1'); quote a value with special characters: 'key=\"a,b\"'"),
    ("-", "model=gpt,example_code", "model=gpt,example_code: several values need -m, which sweeps over them; quote a value with special characters: 'key=\"a,b\"'"),
    ("-", "model=null", "model=null: a group needs one of its options"),
    ("-", "+seed=1", "+seed=1: the key is there already; write it without +"),
    ("-", "~seed", "seed: was deleted, and a run needs it"),
    ("-", "~schedule", "schedule: was deleted, and a run needs it"),
    ("-", "seed=???", "seed: is missing; give it a value"),
    ("-", "seed=${nope}", "seed=${nope}: there is no nope; give seed a value"),
    ("-", "model=example_code data=text", "data.context=${model.context}: there is no model.context; give data.context a value"),
    ("-", "trust=os", "trust=os: the standard library is never trusted"),
    ("-", "trust=torch.hub", "trust=torch.hub: torch beyond its modules and optimizers is never trusted"),
    ("33", "schedule=csv schedule.file=nowhere.csv", "schedule.file=nowhere.csv: No such file or directory"),
]  # fmt: skip


def refusal(line: str, config_dir: Path | None = None) -> str:
    """The one line with which a command line is refused before anything is built."""
    words = line.split()
    trusted = tuple(word.removeprefix("trust=") for word in words if word.startswith("trust="))
    with pytest.raises(ConfigError) as error:
        load(*compose(words, config_dir), Allowlist(trusted, (str(config_dir),) if config_dir else ()))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("row", "line", "message"), WITHOUT_A_MODEL, ids=[case[1] for case in WITHOUT_A_MODEL])
def test_a_wrong_value_is_refused_in_one_line_before_a_model_is_built(row, line, message):
    assert refusal(line) == message


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("optimzer.lr=3", "optimzer.lr=3: unknown key (did you mean optimizer?); valid: "),
        ("schedule=zbw", "schedule=zbw: unknown schedule (did you mean zbv?); valid: "),
        ("schedule=PipelineScheduleSingle", "schedule=PipelineScheduleSingle: unknown schedule"),
        ("model=exmple_code", "model=exmple_code: unknown model (did you mean example_code?); valid: "),
        ("data=txt", "data=txt: unknown data (did you mean text?); valid: "),
        ("experiment=nope", "experiment=nope: unknown experiment"),
        ("stage=3", "stage=3: unknown key (did you mean stages?); valid: "),
        ("+stage=3", "stage=3: unknown key (did you mean stages?); valid: "),
        ("++stage=3", "stage=3: unknown key (did you mean stages?); valid: "),
        ("topology.nodes=3", "topology.nodes=3: no option of topology is chosen; valid: topology=a100, topology=h100"),
        ("fault.rank=1", "fault.rank=1: no option of fault is chosen; valid: fault="),
        ("modle=gpt", "modle=gpt: unknown key (did you mean model?); valid: "),
        ("schedule=interleaved_1f1b ranks=2 microbatches=5", "microbatches=5: "),
        ("schedule=zbv ranks=4 stages=4", "stages=4: on ranks=4: "),
        ("~model", "data.d_hid=${model.d_hid}: "),
    ],
)
def test_an_unknown_word_is_answered_with_the_word_that_was_meant(line, start):
    assert refusal(line).startswith(start)


def test_a_schedule_that_cannot_do_with_so_few_microbatches_says_how_many_it_needs():
    message = refusal("schedule=grouped_interleaved_1f1b ranks=4 microbatches=1")
    assert message == "microbatches=1: a group has 4 of them; valid: >= 4"


def test_a_schedule_from_a_file_allows_no_other_numbers(tmp_path):
    (tmp_path / "two.csv").write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    file = f"schedule=csv schedule.file={tmp_path}/two.csv"
    has = f"schedule.file={tmp_path}/two.csv has"
    assert refusal(f"{file} stages=4") == f"stages=4: {has} stages=2; valid: 2"
    assert refusal(f"{file} ranks=1") == f"ranks=1: {has} ranks=2; valid: 2"
    assert refusal(f"{file} microbatches=8") == f"microbatches=8: {has} microbatches=2; valid: 2"


def test_a_defect_in_a_schedule_file_is_named_with_its_place(tmp_path):
    (tmp_path / "bad.csv").write_text("0F0,0X0,0B0\n")
    message = refusal(f"schedule=csv schedule.file={tmp_path}/bad.csv")
    assert message.startswith(f"schedule.file={tmp_path}/bad.csv: ")
    assert "row 1, column 2" in message or "B1" in message


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder of YAML files."""
    (tmp_path / "model").mkdir()
    return tmp_path


def test_a_yaml_file_with_an_error_is_named_with_line_and_column(own):
    (own / "model" / "mine.yaml").write_text("_target_: a.B\n size: [\n")
    assert refusal("model=mine", own) == f"{own}/model/mine.yaml:2:6: mapping values are not allowed here"


def test_a_yml_file_is_pointed_at(own, cli):
    (own / "model" / "mine.yml").write_text("_target_: a.B\n")
    ended = cli("model=mine", "--config-dir", str(own))
    assert ended.error_lines == [f"error: model=mine: {own}/model/mine.yml is not read; rename it to mine.yaml"]


def test_a_folder_of_yaml_files_that_is_not_there_is_named(cli, tmp_path):
    ended = cli("--config-dir", "nowhere")
    assert (ended.code, ended.err) == (2, f"error: --config-dir={tmp_path}/nowhere: there is no such folder\n")


def test_a_yaml_file_with_a_name_of_ours_is_not_ignored_in_silence(own, cli):
    (own / "model" / "gpt.yaml").write_text("_target_: their.Net\n")
    ended = cli("model=gpt", "--config-dir", str(own))
    message = f"error: --config-dir={own}: model/gpt.yaml has the name of one of pipezoo's own files; rename it\n"
    assert (ended.code, ended.err) == (2, message)
    (own / "split").mkdir()
    (own / "split" / "replay.yaml").write_text("_target_: their.split\n")
    ended = cli("model=gpt", "--config-dir", str(own))
    names = "model/gpt.yaml, split/replay.yaml have names of pipezoo's own files; rename them"
    assert (ended.code, ended.err) == (2, f"error: --config-dir={own}: {names}\n")


@pytest.mark.parametrize(
    "words", [["steps=0"], ["schedule=zbw"], ["stages=5", "ranks=2"], ["+model.d=1"], ["model=a,b"]]
)
def test_the_command_line_ends_with_one_line_and_code_2_and_leaves_nothing(cli, tmp_path, words):
    ended = cli(*words)
    assert ended.code == 2
    assert all(line.startswith("pipezoo   ") for line in ended.out.splitlines()), "the head line, where torch is needed"
    assert len(ended.out.splitlines()) <= 1
    assert len(ended.error_lines) == 1
    assert ended.err.startswith("error: ")
    assert list(tmp_path.rglob("result.json")) == []
    assert list(tmp_path.glob("outputs/*/*")) == []


def test_debug_shows_the_traceback_too(cli):
    ended = cli("steps=0", "debug=true")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert ended.error_lines[-1] == "error: steps=0: must be an int; valid: >= 1"


WITH_THE_MODEL = [
    ("-", "data.d_hid=7", "data=regression: example=[4, 7]: the forward of ExampleCode fails on it: RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x7 and 8x8)"),
    ("-", "model=multi_mlp data.d_hid=7", "data=regression: example=[4, 7]: the forward of MultiMLP fails on it: RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x7 and 8x8)"),
    ("11", "model.splits=9", "model.splits=9: must be an int in 2..8"),
    ("11", "model.splits=1", "model.splits=1: must be an int in 2..8"),
    ("11", "model.splits=0", "model.splits=0: must be an int in 2..8"),
    ("11", "model.splits=2.5", "model.splits=2.5: must be an int in 2..8"),
    ("11", "model.splits='6'", "model.splits='6': must be an int in 2..8"),
    ("11", "model.splits=true", "model.splits=true: must be an int in 2..8"),
    ("11", "stages=9 microbatches=9", "stages=9: must be an int in 2..8"),
    ("13", "model.d_hid=0", "model.d_hid=0: must be an int >= 1"),
    ("13", "model.d_hid=-1", "model.d_hid=-1: must be an int >= 1"),
    ("13", "model.d_hid=null", "model.d_hid=null: must be an int >= 1"),
    ("13", "model.d_hid=2.5", "model.d_hid=2.5: must be an int >= 1"),
    ("15", "model=model_with_param_alias +model.splits=2", "model.splits=2: unknown key; valid: d_hid"),
    ("15", "model=model_with_param_alias stages=4", None),
    ("16", "model=multi_mlp model.n_layers=2 stages=4", None),
    ("17", "model=multi_mlp model.n_layers=0", "model.n_layers=0: must be an int >= 1"),
    ("17", "model=multi_mlp model.n_layers=-3", "model.n_layers=-3: must be an int >= 1"),
    ("19", "+model.split=6", "model.split=6: unknown key (did you mean splits?); valid: d_hid, splits"),
    ("20", "model=multi_mlp +split.split_spec={layers.9:beginning}", None),
    ("20", "model=multi_mlp +split.split_spec={layers.1:middle}", None),
    ("28", "loss.reduction=none", None),
    ("-", "optimizer.lr=-1", "optimizer.lr=-1: Invalid learning rate: -1"),
    ("-", "optimizer.lr=fast", "optimizer.lr=fast: must be a number"),
    ("-", "optimizer=adamw optimizer.betas=[0.9]", "optimizer.betas=[0.9]: must be a list of 2: [a number, a number]"),
    ("-", "+optimizer.rate=1", None),
    ("-", "model._target_=torch.nn.MSELoss", None),
    ("-", "optimizer._target_=torch.nn.MSELoss", "optimizer._target_=torch.nn.MSELoss: is not a subclass of torch.optim.optimizer.Optimizer"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "line", "message"), WITH_THE_MODEL, ids=[case[1] for case in WITH_THE_MODEL])
def test_what_only_the_model_can_know_is_refused_before_a_process_starts(row, line, message, tmp_path):
    from pipezoo.runtime.build import build_pipeline

    words = ["model.d_hid=8"] * ("model.d_hid" not in line) + line.replace("+split.", "split.").split()
    with pytest.raises(ConfigError) as error:
        build_pipeline(load(*compose(words), Allowlist()), tmp_path)
    text = str(error.value)
    assert "\n" not in text
    if message is None:
        first = words[-1].lstrip("+").partition("=")[0]
        assert text.startswith(first.split(".")[0]), text
    else:
        assert text == message
