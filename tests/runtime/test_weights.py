"""Weights in and out: a file of them is a model's state_dict, and of no other model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.errors import ConfigError
from pipezoo.launch import Processes
from pipezoo.runtime.safetensors_file import read_safetensors, write_safetensors
from pipezoo.runtime.weights import load_weights, read_weights
from tests.support.experiments import WIDTH, component, experiment, run


class Tied(nn.Module):
    """One weight under two names, a buffer that is saved and one that is not, a frozen part, one that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH))
        self.layers[2].weight = self.layers[0].weight
        self.layers[2].bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def halves(model: nn.Module, num_stages: Any = None, example: Any = None) -> list[nn.Module]:
    return [model.layers[:2], model.layers[2:]]


def asked(*kinds: str, **changes: Any) -> Any:
    exports = tuple(component("export", f"pipezoo.exports.weights.{kind}") for kind in kinds)
    words = {"split": halves, "num_microbatches": 2, "batch_size": 8, "exports": exports}
    return experiment(Tied, **{**words, **changes})


FILES = {"state_dict": "model.pt", "safetensors": "model.safetensors", "dcp": "model.dcp"}


@pytest.mark.parametrize("words", [{}, {"verify": False, "launch": Processes(), "launch_name": "processes"}])
@pytest.mark.parametrize("kind", FILES)
def test_the_trained_model_is_written_under_its_own_names(kind, words, tmp_path):
    run(asked(kind, **words), tmp_path)
    state = read_weights(str(tmp_path / "export" / kind / FILES[kind]))
    model, start = Tied(), Tied().state_dict()
    assert set(state) == set(start)
    assert "scratch" not in state
    model.load_state_dict(state, strict=True)
    assert torch.equal(state["layers.0.weight"], state["layers.2.weight"])
    assert state["layers.1.num_batches_tracked"] == 4  # two steps of two microbatches
    assert torch.equal(state["unused"], torch.ones(3))


def test_a_run_begins_where_another_ended(tmp_path):
    run(asked("safetensors", steps=2), tmp_path / "first")
    weights = str(tmp_path / "first" / "export" / "safetensors" / "model.safetensors")
    second = run(asked("safetensors", steps=1, weights=weights), tmp_path / "second")
    whole = run(asked(steps=3), tmp_path / "whole")
    assert second["verified"] in ("exact", "close")
    assert second["losses"] != whole["losses"][:1]  # of the same first batch
    again = run(asked(steps=1, weights=weights), tmp_path / "again")
    assert again["losses"] == second["losses"]


def test_a_torch_file_and_what_others_wrap_it_in_are_read(tmp_path):
    state = Tied().state_dict()
    for number, content in enumerate([state, {"state_dict": state, "epoch": 3}, {"model": state}]):
        torch.save(content, tmp_path / f"{number}.pt")
        assert set(read_weights(str(tmp_path / f"{number}.pt"))) == set(state)


def test_a_folder_of_shards_is_read(tmp_path):
    state = {"a": torch.ones(2), "b": torch.zeros(3)}
    for name in state:
        write_safetensors(tmp_path / f"{name}.safetensors", {name: state[name]})
    index = {"weight_map": {name: f"{name}.safetensors" for name in state}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_weights(str(tmp_path))) == {"a", "b"}


def test_a_tied_weight_may_be_there_once(tmp_path):
    state = {name: value + 1 for name, value in Tied().state_dict().items() if name != "layers.2.weight"}
    write_safetensors(tmp_path / "one.safetensors", state)
    model = load_weights(Tied(), str(tmp_path / "one.safetensors"))
    assert torch.equal(model.layers[2].weight, state["layers.0.weight"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.pop("unused"), "it lacks unused$"),
        (lambda s: s.update(head=torch.ones(1)), "the model has no head$"),
        (lambda s: s.update(unused=torch.ones(4)), r"other shapes: unused is \(3,\) float32, there \(4,\) float32$"),
        (
            lambda s: s.update(unused=torch.ones(3).int()),
            r"other shapes: unused is \(3,\) float32, there \(3,\) int32$",
        ),
        (lambda s: s.clear(), r"it lacks unused, layers.0.weight, layers.0.bias and 7 more$"),
    ],
)
def test_weights_of_another_model_are_refused_by_what_differs(change, why, tmp_path):
    state = Tied().state_dict()
    change(state)
    torch.save(dict(state), tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=f"model.weights=.*other.pt: is of another model: {why}"):
        load_weights(Tied(), str(tmp_path / "other.pt"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda path: None, "no such file or folder"),
        (lambda path: path.write_bytes(b"not weights"), "model.weights="),
        (lambda path: torch.save({"a": Evil()}, path), "holds more than tensors, and nothing in it is executed"),
        (lambda path: torch.save([torch.ones(1)], path), "holds no state_dict"),
        (lambda path: path.mkdir(), "the folder has no weights; valid: model.safetensors"),
    ],
)
def test_what_is_no_file_of_weights_is_one_line(write, why, tmp_path, capfd):
    write(tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=why) as refused:
        read_weights(str(tmp_path / "w.pt"))
    assert "\n" not in str(refused.value)
    assert "run" not in capfd.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, (2).to_bytes(8, "little") + b"[1"])
def test_what_is_no_safetensors_file_is_refused(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("offsets", [[0, 8], [-4, 0], [0, 400], [4, 0]])
def test_a_tensor_that_does_not_lie_in_its_file_is_refused(offsets, tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(ValueError, match="a does not lie in it as its shape says"):
        read_safetensors(tmp_path / "a.safetensors")


def test_the_library_reads_what_is_written_and_writes_what_is_read(tmp_path):
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    dtypes = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.float64, torch.float16)
    state = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in dtypes}
    state |= {"empty": torch.empty(0, 4), "scalar": torch.tensor(2.5), "across": torch.arange(6.0).reshape(2, 3).T}
    write_safetensors(tmp_path / "ours.safetensors", state)
    theirs = library.load_file(tmp_path / "ours.safetensors")
    library.save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "theirs.safetensors")
    ours = read_safetensors(tmp_path / "theirs.safetensors")
    for name, value in state.items():
        assert torch.equal(theirs[name], value)
        assert torch.equal(ours[name], value)


def test_the_command_line_takes_weights_of_any_model(cli, tmp_path: Path):
    small = ("model=multi_mlp", "model.d_hid=8", "stages=2", "microbatches=2", "steps=1")
    first = cli(*small, "export=[safetensors,state_dict]", "hydra.run.dir=first")
    assert first.code == 0, first.err
    for file in ("safetensors/model.safetensors", "state_dict/model.pt"):
        assert (tmp_path / "first" / "export" / file).is_file()
    again = cli(*small, "model.weights=first/export/safetensors/model.safetensors", "steps=1")
    assert again.code == 0, again.err
    assert "verified  exact" in again.out
    other = cli(*small, "model.d_hid=16", "model.weights=first/export/safetensors/model.safetensors")
    assert other.code == 2
    assert "is of another model: other shapes: " in other.err
    nothing = cli("task=simulate", "ranks=2", "microbatches=2", "export=safetensors")
    assert nothing.code == 2
    assert "there are no trained weights; valid: task=train" in nothing.err
