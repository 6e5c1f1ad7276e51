"""torch's distributed checkpoint as weights: read as others write it, written as they read it, and no code runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint

from pipezoo.errors import ConfigError
from pipezoo.runtime.dcp_folder import read_dcp, write_dcp
from pipezoo.runtime.weights import read_weights

STATE = {"up.weight": torch.arange(12.0).reshape(4, 3), "up.bias": torch.ones(4).bfloat16(), "count": torch.tensor(7)}


def save(folder: Path, state: dict[str, Any]) -> Path:
    """As a trainer of one process does."""
    with pytest.warns(UserWarning, match="single process"):
        checkpoint.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], value) for name, value in STATE.items())


def rewrite(folder: Path, change: Any) -> None:
    """What is told of a folder's pieces, changed."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def test_a_trainer_reads_what_is_written(tmp_path):
    write_dcp(tmp_path / "model.dcp", STATE)
    into = {name: torch.zeros_like(value) for name, value in STATE.items()}
    with pytest.warns(UserWarning, match="single process"):
        checkpoint.load(into, checkpoint_id=tmp_path / "model.dcp", no_dist=True)
    assert same(into)
    assert str(tmp_path).encode() not in (tmp_path / "model.dcp" / ".metadata").read_bytes()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s}])
def test_what_trainers_save_beside_the_model_is_left_out(wrap, tmp_path):
    more = {"optimizer": {"state": {"up.weight": {"exp_avg": torch.ones(4, 3)}}}, "train_state": {"step": 3}}
    assert same(read_dcp(save(tmp_path / "theirs", {**wrap(STATE), **more})))


def test_the_pieces_of_several_ranks_are_put_together(tmp_path):
    """A file a rank, as two ranks write them: rows 0 to 1, and rows 2 to 3."""
    folder = save(tmp_path / "sharded", STATE)
    second = save(tmp_path / "second", {"up.weight": STATE["up.weight"][2:].clone()})
    first = save(tmp_path / "first", {"up.weight": STATE["up.weight"][:2].clone()})
    for rank, source in enumerate((first, second)):
        (source / "__0_0.distcp").rename(folder / f"__{rank + 1}_0.distcp")
    told = pickle.loads((second / ".metadata").read_bytes())

    def split(metadata: Any) -> None:
        info = metadata.state_dict_metadata["up.weight"]
        whole = next(index for index in metadata.storage_data if index.fqn == "up.weight")
        piece, place = type(info.chunks[0]), metadata.storage_data.pop(whole)
        length = next(iter(told.storage_data.values())).length
        info.chunks = [piece(torch.Size([row, 0]), torch.Size([2, 3])) for row in (0, 2)]
        for rank, chunk in enumerate(info.chunks):
            index = type(whole)("up.weight", chunk.offsets)
            metadata.storage_data[index] = type(place)(f"__{rank + 1}_0.distcp", 0, length)

    rewrite(folder, split)
    assert same(read_dcp(folder))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def outside(metadata: Any) -> None:
    for place in metadata.storage_data.values():
        place.relative_path = "../elsewhere"


def too_long(metadata: Any) -> None:
    for place in metadata.storage_data.values():
        place.length *= 100


def holes(metadata: Any) -> None:
    metadata.state_dict_metadata["up.weight"].size = torch.Size([5, 3])


def huge(metadata: Any) -> None:
    info = metadata.state_dict_metadata["up.weight"]
    info.size = info.chunks[0].sizes = torch.Size([10**6, 10**6])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / ".metadata").unlink(), "has pieces of a checkpoint and no .metadata"),
        (lambda folder: (folder / "__0_0.distcp").unlink(), "has no __0_0.distcp, of which .metadata tells"),
        (lambda folder: (folder / ".metadata").write_bytes(b"no pickle"), "holds more than tensors|model.weights="),
        (lambda folder: (folder / ".metadata").write_bytes(pickle.dumps(Evil())), "holds more than tensors"),
        (lambda folder: (folder / ".metadata").write_bytes(pickle.dumps({})), ".metadata is not what torch.dist"),
        (lambda folder: rewrite(folder, outside), "leads out of the folder: ../elsewhere"),
        (lambda folder: rewrite(folder, too_long), "__0_0.distcp ends before"),
        (lambda folder: rewrite(folder, holes), r"the pieces of up.weight do not make up its shape \(5, 3\)"),
        (lambda folder: rewrite(folder, huge), "up.weight is said to be larger than the files"),
        (lambda folder: (folder / "__0_0.distcp").write_bytes(bytes(10**5)), "cannot be read"),
    ],
)
def test_what_is_no_whole_checkpoint_is_one_line(spoil, why, tmp_path, capfd):
    spoil(save(tmp_path / "theirs", STATE))
    with pytest.raises(ConfigError, match=why) as refused:
        read_weights(str(tmp_path / "theirs"))
    assert "\n" not in str(refused.value)
    assert "run" not in capfd.readouterr().out


def test_a_checkpoint_without_a_model_is_refused(tmp_path):
    folder = save(tmp_path / "theirs", {"optimizer": {"exp_avg": torch.ones(2)}})
    with pytest.raises(ConfigError, match="holds no tensors of a model"):
        read_weights(str(folder))
