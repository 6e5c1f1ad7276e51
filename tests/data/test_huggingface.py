from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipezoo.data import huggingface

datasets = pytest.importorskip("datasets", reason="the library of Hugging Face's data sets is not installed")


@pytest.fixture
def table(tmp_path):
    datasets.disable_progress_bars()
    rows = {"input_ids": [[index, index + 1, index + 2, index + 3] for index in range(12)], "label": list(range(12))}
    return datasets.Dataset.from_dict(rows)


def saved(table, tmp_path, kind: str) -> str:
    path = str(tmp_path / ("part" if kind in ("folder", "splits") else f"part.{kind}"))
    if kind == "folder":
        table.save_to_disk(path)
    elif kind == "splits":
        datasets.DatasetDict({"train": table, "test": table}).save_to_disk(path)
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        table.save_to_disk(str(tmp_path / "arrow"))
        path = str(next((tmp_path / "arrow").glob("*.arrow")))
    return path


@pytest.mark.parametrize("kind", ["folder", "splits", "parquet", "arrow"])
def test_rows_come_from_local_files_in_an_order_of_the_seed(table, tmp_path, kind):
    path, split = saved(table, tmp_path, kind), "train" if kind == "splits" else None
    batch = huggingface.batches(4, 0, path, split)(0)
    assert set(batch.kwargs) == {"input_ids"}
    assert torch.equal(batch.kwargs["input_ids"][:, 0], batch.target)
    assert torch.equal(batch.target, huggingface.batches(4, 0, path, split)(0).target)
    epoch = torch.cat([huggingface.batches(4, 1, path, split)(step).target for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))


def test_a_column_of_tokens_is_input_and_target(table, tmp_path):
    batch = huggingface.batches(4, 0, saved(table, tmp_path, "parquet"), inputs=("input_ids",), shift=True)(0)
    assert torch.equal(batch.args[0] + 1, batch.target)


@pytest.mark.parametrize(
    ("kind", "words", "why"),
    [
        ("splits", {}, "split=None: .* has splits; valid: train, test"),
        ("folder", {"split": "train"}, "split=train: .* is one table"),
        ("folder", {"target": "labels"}, "target=labels: .* has no such column; valid: input_ids, label"),
        ("folder", {"inputs": ("ids",)}, "inputs=ids: .* has no such column"),
    ],
)
def test_what_a_table_does_not_have_is_refused(table, tmp_path, kind, words, why):
    with pytest.raises(ValueError, match=why):
        huggingface.batches(4, 0, saved(table, tmp_path, kind), **words)


def test_rows_of_unequal_lengths_are_named(tmp_path):
    datasets.Dataset.from_dict({"ids": [[1] * (4 + index % 2) for index in range(8)]}).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(ValueError, match=r"row 1 of the batch is ids \(5,\) int64, row 0 is ids \(4,\) int64"):
        huggingface.batches(4, 0, str(tmp_path / "a.parquet"), shift=True, shuffle=False)(0)


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"path=x: needs the package datasets: pip install 'pipezoo\[datasets\]'"):
        huggingface.batches(4, 0, "x")


def test_no_source_of_data_imports_a_library_that_it_does_not_use():
    code = (
        "import pipezoo.runtime.build, sys; print([m for m in ('datasets', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
