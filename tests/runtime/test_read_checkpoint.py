"""Files of a checkpoint that are not what they say: refused in a line, and nothing in them is executed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from pipezoo.errors import ConfigError
from pipezoo.runtime.checkpoint import hash_of
from pipezoo.runtime.read_checkpoint import read
from tests.support.checkpoints import save


def refused(folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read(str(folder))
    return str(error.value).replace(str(folder), "F")


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (str(Evil.folder),)

    folder = Path("evil")


def replace_part(path: Path, data: bytes) -> None:
    """Put other bytes into a checkpoint, its manifest brought in line."""
    (path / "part-0.pt").write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["parts"][0] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    sign(path, manifest)


def sign(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose own hash is right."""
    manifest.pop("sha256", None)
    text = json.dumps({**manifest, "sha256": hash_of(manifest)})
    (path / "manifest.json").write_text(text)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1)
    Evil.folder = tmp_path / "evil"
    path = tmp_path / "checkpoints" / "step-00000001"
    for data in (pickle.dumps(Evil()), torch_bytes({"model": Evil()})):
        replace_part(path, data)
        assert "cannot be read" in refused(path)
        assert not Evil.folder.exists()


def torch_bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_changed_bytes_are_found_and_older_ones_offered(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1, keep=None)
    save(tmp_path / "checkpoints", 2, keep=None)
    part = tmp_path / "checkpoints" / "step-00000002" / "part-1.pt"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert refused(tmp_path) == (
        "resume=F/checkpoints/step-00000002: part-1.pt is not what was written; valid: F/checkpoints/step-00000001"
    )


@pytest.mark.parametrize("manifest", ["", "[]", '{"format": 1}', '{"format": 2, "step": 1}', "\x00"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, manifest: str) -> None:
    save(tmp_path / "checkpoints", 1)
    (tmp_path / "checkpoints" / "step-00000001" / "manifest.json").write_text(manifest)
    assert refused(tmp_path).startswith("resume=F/checkpoints/step-00000001: ")


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith("resume=F: holds no complete checkpoint")
