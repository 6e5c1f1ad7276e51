"""The notebooks of ``docs/notebooks`` run in a real kernel, and say what they say in the repository."""

from __future__ import annotations

import os

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "docs" / "notebooks"


def texts(cell):
    """What a cell prints or returns, as text; pictures are left out."""
    found = []
    for output in cell.outputs:
        found += [output.text] if output.output_type == "stream" else [output.get("data", {}).get("text/plain", "")]
    return found


def shows_a_picture(cell):
    kinds = [output.get("data", {}) for output in cell.outputs]
    return any("<svg" in kind.get("image/svg+xml", "") + kind.get("text/html", "") for kind in kinds)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.ipynb")))
def test_a_notebook_says_what_it_says_in_the_repository(name, tmp_path, monkeypatch, no_process_left):
    nbformat = pytest.importorskip("nbformat", reason="jupyter is not installed (the extra test brings it)")
    nbclient = pytest.importorskip("nbclient", reason="jupyter is not installed (the extra test brings it)")
    pytest.importorskip("ipykernel", reason="jupyter is not installed (the extra test brings it)")
    paths = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    written = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    run = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)

    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(run, timeout=200, kernel_name="python3", resources=where).execute()

    cells = [pair for pair in zip(run.cells, written.cells, strict=True) if pair[0].cell_type == "code"]
    assert len(cells) > 5
    for ran, was in cells:
        assert shows_a_picture(ran) == shows_a_picture(was), was.source
        if "timing" not in was.metadata.get("tags", ()):
            assert texts(ran) == texts(was), was.source
