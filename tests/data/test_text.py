from __future__ import annotations

import pytest
import torch

from pipezoo.data import text


@pytest.fixture
def alphabet(tmp_path):
    path = tmp_path / "alphabet.txt"
    path.write_bytes(bytes(range(97, 123)))
    return str(path)


def test_the_target_is_the_input_one_byte_later(alphabet):
    batch = text.batches(8, 0, context=5, path=alphabet)(0)
    assert batch.args[0].shape == batch.target.shape == (8, 5)
    assert batch.args[0].dtype == batch.target.dtype == torch.int64
    assert torch.equal(batch.target, batch.args[0] + 1)  # of an alphabet
    assert torch.equal(batch.args[0][:, 1:], batch.target[:, :-1])


def test_a_batch_is_a_function_of_seed_and_step(alphabet):
    batch = text.batches(8, 0, context=5, path=alphabet)
    assert torch.equal(batch(3).args[0], text.batches(8, 0, context=5, path=alphabet)(3).args[0])
    assert not torch.equal(batch(3).args[0], batch(4).args[0])
    assert not torch.equal(batch(3).args[0], text.batches(8, 1, context=5, path=alphabet)(3).args[0])


def test_every_place_of_the_text_is_drawn_up_to_its_last_byte(alphabet):
    batch = text.batches(500, 0, context=24, path=alphabet)(0)
    assert set(batch.args[0][:, 0].tolist()) == {97, 98}
    assert batch.target.max() == 122


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    for name, content in {"b.txt": b"B", "a/z.md": b"A", "c.txt": b"", ".git/x": b"hidden", ".env": b"hidden"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert text.read_text(str(tmp_path)).tobytes() == b"AB"
    assert text.read_text(str(tmp_path), "*.txt").tobytes() == b"B"


def test_the_default_text_is_english_and_the_same_every_time():
    builtin = text.builtin_text()
    assert len(builtin) > 100_000
    assert b" the " in builtin.tobytes()
    assert builtin.tobytes() == text.builtin_text().tobytes()


def test_without_pydoc_sources_of_the_standard_library_stand_in(monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(text, "import_module", refuse)
    assert b"import" in text.builtin_text().tobytes()
    assert len(text.builtin_text()) > 100_000


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path=.*nowhere: no such file or folder"):
        text.batches(1, 0, context=5, path=str(tmp_path / "nowhere"))


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path=.*: the folder has no file that matches pattern=\*"):
        text.batches(1, 0, context=5, path=str(tmp_path))


def test_empty_files_are_refused(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=r"path=.*: there is no text, 1 empty file\(s\)"):
        text.batches(1, 0, context=5, path=str(tmp_path))


def test_a_text_needs_one_byte_more_than_a_context(alphabet):
    assert text.batches(2, 0, context=25, path=alphabet)(0).args[0].shape == (2, 25)
    with pytest.raises(ValueError, match=r"context=26: the text has 26 bytes; valid: 1..25"):
        text.batches(2, 0, context=26, path=alphabet)
