"""Checkpoints: going on bit for bit, after a kill at any moment, on other stages."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import ConfigError, OutputError
from pipezoo.results.run_dir import read_metrics, read_result
from pipezoo.runtime import checkpoint
from pipezoo.runtime.checkpoint import Checkpoint, CheckpointWriter, complete, write_part
from pipezoo.runtime.optimizer_state import capture, names_of
from pipezoo.runtime.optimizer_state import same as same_data
from pipezoo.runtime.read_checkpoint import read
from pipezoo.runtime.restore import restore_model, restore_optimizer, restore_random
from tests.support.checkpoints import parts, save
from tests.support.command import Command, command

EVERY = ("checkpoint.every=1", "checkpoint.keep=null", "model.n_layers=4")


def last(folder: Path) -> Checkpoint:
    return read(str(folder / "run"))


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether two checkpoints hold the same numbers, bit for bit."""
    return (
        a.step == b.step
        and a.model.keys() == b.model.keys()
        and all(torch.equal(value, b.model[name]) for name, value in a.model.items())
        and same_data(state_of(a), state_of(b))
    )


def state_of(saved: Checkpoint) -> dict[str, Any]:
    """The optimizers' state by the parameter's name."""
    return {name: state for part in saved.optimizers if part for name, state in part["state"].items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert command(folder, "stages=2", *EVERY).wait().code == 0
    return folder


def test_a_checkpoint_follows_every_so_many_steps_and_the_last(tmp_path: Path) -> None:
    assert command(tmp_path, "stages=2", "checkpoint.every=3").wait().code == 0
    assert [path.name for path in complete(tmp_path / "run" / "checkpoints")] == ["step-00000003", "step-00000004"]


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    assert command(tmp_path, "stages=2", "checkpoint.every=1", "checkpoint.keep=2").wait().code == 0
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000004"]


def test_none_are_written_unless_asked(tmp_path: Path) -> None:
    assert command(tmp_path, "stages=2").wait().code == 0
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("step", [1, 3])  # and 2 below
def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path: Path, whole: Path, step: int) -> None:
    source = whole / "run" / "checkpoints" / f"step-{step:08d}"
    resumed = command(tmp_path, "stages=2", *EVERY, f"resume={source}", "verify=true").wait()
    assert resumed.code == 0, resumed.err
    assert f"resume    from {source}, after {step} step{'s' * (step > 1)}\n" in resumed.out
    assert same(last(tmp_path), last(whole))
    assert read_result(tmp_path / "run")["resumed"] == {"from": str(source), "step": step}
    assert read_result(tmp_path / "run")["verified"] == "exact"
    ours, theirs = ([(entry["step"], entry["loss"]) for entry in read_metrics(f / "run")] for f in (tmp_path, whole))
    assert ours == theirs[step:]


@pytest.mark.parametrize(
    "words",
    [
        "stages=4",
        "stages=2 schedule=gpipe split=annotated",
        "stages=4 schedule=interleaved_zero_bubble ranks=2",
        "stages=4 schedule=zbv launch=virtual",
    ],
)
def test_it_goes_on_with_other_stages_schedules_and_splitters(tmp_path: Path, whole: Path, words: str) -> None:
    source = whole / "run" / "checkpoints" / "step-00000002"
    resumed = command(tmp_path, *words.split(), *EVERY, f"resume={source}", "verify=true").wait()
    assert resumed.code == 0, resumed.err
    assert read_result(tmp_path / "run")["verified"] == "exact"
    assert same(last(tmp_path), last(whole))


def test_tied_weights_and_unused_parameters_are_in_it(tmp_path: Path) -> None:
    words = ("model=example_code", "split=marked", "model.splits=2", "stages=2", "checkpoint.every=2")
    assert command(tmp_path, *words, "steps=2").wait().code == 0
    saved = last(tmp_path)
    assert {name.split(".")[0] for name in saved.model} >= {"lin0", "lin1", "lin6"}
    again = command(tmp_path / "again", *words, f"resume={tmp_path / 'run'}", "verify=true").wait()
    assert again.code == 0, again.err
    other = command(tmp_path / "other", *words[:2], "stages=4", "model.splits=4", f"resume={tmp_path / 'run'}").wait()
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "is of another model: model.splits=4 here, 2 there" in other.err


# Kills ------------------------------------------------------------------------------------------------------------


def killed_at(count: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in a process that kills itself before, or half through, its ``count``-th change of a file."""
    worker = os.fork()
    if worker == 0:
        left = [count]

        def with_fault(change: Callable[..., Any]) -> Callable[..., Any]:
            def inject(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    if change is checkpoint._write:
                        args[0].write_bytes(bytes(args[1])[: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **kwargs)

            return inject

        checkpoint._write, checkpoint.sync_folder = with_fault(checkpoint._write), with_fault(checkpoint.sync_folder)
        os.rename, Path.mkdir, os.unlink, os.rmdir = map(with_fault, (os.rename, Path.mkdir, os.unlink, os.rmdir))  # type: ignore[assignment, method-assign]
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_every_change_of_a_file_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1)
    count, seen = 0, set()
    while True:
        count += 1
        folder = tmp_path / str(count)
        shutil.copytree(tmp_path / "checkpoints", folder / "checkpoints")
        killed = killed_at(count, lambda folder=folder: save(folder / "checkpoints", 2))  # type: ignore[misc]
        saved = read(str(folder))
        seen.add(saved.step)
        reference = parts(float(saved.step))[0]
        assert torch.equal(saved.model["weight"], reference.weight)
        assert state_of(saved).keys() == {"weight", "bias"}
        if not killed:
            break
    assert count > 12
    assert seen == {1, 2}


@pytest.mark.parametrize(
    "fault", ["fault.rank=1 fault.at=save fault.step=2", "fault.rank=0 fault.at=1F2 fault.step=1", "fault.at=update"]
)
def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint_only(tmp_path: Path, whole: Path, fault: str) -> None:
    words = fault.replace("1F2", "0F2").split()
    killed = command(tmp_path, "stages=2", *EVERY, "fault=kill", *words).wait()
    assert killed.code == 4
    found = complete(tmp_path / "run" / "checkpoints")
    again = tmp_path / "again"
    resume = [f"resume={tmp_path / 'run'}"] if found else []
    assert command(again, "stages=2", *EVERY, *resume).wait().code == 0
    assert same(last(again), last(whole))


@pytest.mark.parametrize("after", [0.0, 0.02])
def test_a_killed_command_goes_on_from_what_is_there(tmp_path: Path, whole: Path, after: float) -> None:
    run = command(tmp_path, "stages=2", *EVERY)
    until = time.time() + 30.0
    while not complete(tmp_path / "run" / "checkpoints"):
        assert time.time() < until, run.err
        time.sleep(0.001)
    time.sleep(after)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.gone_after(1.0)
    if len(complete(tmp_path / "run" / "checkpoints")) == 4:
        pytest.skip("it had come to its end")
    resumed = command(tmp_path / "again", "stages=2", *EVERY, f"resume={tmp_path / 'run'}").wait()
    assert resumed.code == 0, resumed.err
    assert same(last(tmp_path / "again"), last(whole))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    words = ("stages=2", "checkpoint.every=1", "fault=disk_full", "fault.at=save", "fault.step=2", "fault.rank=1")
    ended = command(tmp_path, *words).wait()
    assert ended.code == 6
    assert "part-1.pt: cannot be written: File too large" in ended.err
    assert last(tmp_path).step == 2
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_another_model_and_another_optimizer_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    saved = read(str(tmp_path))
    with pytest.raises(ConfigError, match=r"is of another model: bias is \(2,\) float32, there \(3,\) float32"):
        restore_model(nn.Linear(3, 2), saved)
    with pytest.raises(ConfigError, match=r"is of another model: the model has no bias"):
        restore_model(nn.Linear(3, 3, bias=False), saved)
    layer = nn.Linear(3, 3)
    with pytest.raises(ConfigError, match=r"was trained by AdamW, and this is SGD"):
        restore_optimizer(torch.optim.SGD(layer.parameters(), lr=0.1), layer.named_parameters(), saved)


def test_refusals_are_one_line_with_exit_code_2(tmp_path: Path, whole: Path) -> None:
    for words, line in (
        (["model.d_hid=32"], "is of another model: model.d_hid=32 here, 16 there"),
        (["optimizer=adamw", "steps=9"], "was trained by SGD, and this is AdamW"),
        (["steps=2"], "steps=2: the checkpoint has 4 behind it already; valid: > 4"),
    ):
        ended = command(tmp_path / words[0], "stages=2", "model.n_layers=4", f"resume={whole / 'run'}", *words).wait()
        assert ended.code == 2
        assert line in ended.err
        assert len(ended.err.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    layer, optimizer = parts(1.0)
    keeper = CheckpointWriter(tmp_path / "checkpoints", 1, None)
    named = dict(layer.named_parameters())
    message = write_part(tmp_path / "checkpoints", 1, 0, named, capture(optimizer, names_of(named.items())))
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(OutputError, match="checkpoints: cannot be written: No such file or directory"):
        keeper.on_message("rank 0", message)


def test_a_sweep_can_resume(tmp_path: Path, whole: Path) -> None:
    from tests.support.command import SMALL

    words = ("-m", *SMALL, "model.n_layers=4", f"resume={whole / 'run' / 'checkpoints' / 'step-00000002'}")
    sweep = Command(tmp_path, (*words, "stages=2,4", "hydra.sweep.dir=sweep")).start().wait()
    assert sweep.code == 0, sweep.err
    losses = [read_result(tmp_path / "sweep" / str(job))["losses"] for job in (0, 1)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("gpu", "restored"), [(True, [[7, 7]]), (False, [])])
def test_random_numbers_go_on_on_the_gpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu, restored) -> None:
    seen: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7, 7], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: seen.append(state.tolist()))
    layer = nn.Linear(2, 2)
    named = dict(layer.named_parameters())
    keeper = CheckpointWriter(tmp_path / "checkpoints", num_processes=1, keep=None)
    keeper.on_message("rank 0", write_part(tmp_path / "checkpoints", 1, 0, named, None))
    before = torch.get_rng_state()
    torch.rand(3)
    restore_random(0, 1, read(str(tmp_path)))
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == restored
    restore_random(0, 2, read(str(tmp_path)))  # on another number of processes they start from the seed
    assert seen == restored
