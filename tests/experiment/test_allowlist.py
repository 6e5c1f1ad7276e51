from __future__ import annotations

import pytest

from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist, resolve


@pytest.mark.parametrize(
    "target", ["pipezoo.schedules.gpipe.gpipe", "torch.nn.Linear", "torch.optim.SGD", "torch.nn.MSELoss"]
)
def test_our_own_code_and_torchs_modules_need_no_trust(target):
    assert resolve("model._target_", target, Allowlist()).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize("package", ["os", "builtins", "pathlib", "torch", "torch.hub", "importlib.util"])
def test_some_code_cannot_be_trusted_at_all(package):
    with pytest.raises(ConfigError, match=f"^trust={package}: .* is never trusted$"):
        Allowlist((package,))


def test_trust_does_not_reach_a_package_with_a_similar_name():
    trust = Allowlist(("their",))
    assert trust.covers("their.nets")
    assert not trust.covers("theirs.nets")


def test_nothing_is_imported_before_its_name_was_judged(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve("model._target_", "evil_module.Net", Allowlist())


def test_a_module_that_fails_to_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"^model._target_=broken_module.Net: importing broken_module failed: No module"
    ):
        resolve("model._target_", "broken_module.Net", Allowlist(("broken_module",)))
