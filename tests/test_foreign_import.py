"""A library whose torchvision has no operators is imported once more; nobody else asks for torchvision."""

from __future__ import annotations

import sys

import pytest

from pipezoo import foreign_import
from pipezoo.foreign_import import import_foreign

LIBRARIES = {
    "broken": "raise RuntimeError('operator torchvision::nms does not exist')",
    "needy": "import a_module_that_is_nowhere",
    "fine": "",
}


@pytest.fixture
def declared(monkeypatch, tmp_path):
    """How often torchvision was tried; what it lacks is never declared."""
    asked: list[None] = []
    monkeypatch.setattr(foreign_import, "declare_operators", lambda: bool(asked.append(None)))
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in LIBRARIES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return asked


@pytest.mark.parametrize("name", ["broken", "needy"])
def test_a_library_that_fails_to_load_has_torchvision_tried(declared, name):
    with pytest.raises((RuntimeError, ModuleNotFoundError)):
        import_foreign(name)
    assert len(declared) == 1


@pytest.mark.parametrize("name", ["pipezoo.launch.Processes", "torch.optim.AdamW", "nowhere"])
def test_a_name_that_is_no_module_does_not(declared, name):
    with pytest.raises(ModuleNotFoundError):
        import_foreign(name)
    assert import_foreign("fine").__name__ == "fine"
    assert declared == []
