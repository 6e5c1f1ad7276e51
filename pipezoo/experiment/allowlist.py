"""Whose code a config may name. A file of settings must not be able to run anything on the machine that reads it.

    allowed                            refused, under whatever name it is re-exported
    pipezoo.*                          the standard library: os.system, pathlib.Path.write_text, builtins.open
    torch.nn.*, torch.optim.* classes  the rest of torch: torch.load, torch.hub.load
    what the command line trusts       what only a file trusts

The name is judged before anything is imported, and the object it leads to is judged again by where it was defined.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.validators import unknown

OURS = "pipezoo"
OF_TORCH = ("torch.nn", "torch.optim")
VALID = "pipezoo.*, classes of torch.nn and torch.optim, and packages named by trust= on the command line"


@dataclass(frozen=True)
class Allowlist:
    """What the command line trusts besides pipezoo and torch's modules.

    Args:
        packages: dotted names, from ``trust=``; each with all below it.
        third_party: every package that is neither the standard library's nor torch's, from ``--config-dir``.
    """

    packages: tuple[str, ...] = ()
    third_party: bool = False

    def __post_init__(self) -> None:
        for package in self.packages:
            root = package.partition(".")[0]
            if not all(name.isidentifier() for name in package.split(".")):
                raise ConfigError(f"trust={package}: is not the name of a package")
            if root == "torch" or root in sys.stdlib_module_names:
                whose = "torch beyond torch.nn and torch.optim" if root == "torch" else "the standard library"
                raise ConfigError(f"trust={package}: {whose} is never trusted")

    def covers(self, module: str) -> bool:
        """Whether objects that are defined in ``module`` may be used."""
        root = module.partition(".")[0]
        if root == OURS:
            return True
        if root in sys.stdlib_module_names or root == "torch":
            return any(_within(module, package) for package in OF_TORCH)
        return self.third_party or any(_within(module, package) for package in self.packages)


def resolve(key: str, target: str, trust: Allowlist) -> Any:
    """The object with the dotted name ``target``.

    Raises:
        ConfigError: ``key=target:`` is not allowed, or there is no such thing.
    """
    if not trust.covers(target):
        root = target.partition(".")[0]
        ours = root in sys.stdlib_module_names or root == "torch"
        hint = "" if ours else f"; add trust={root} to the command line if it is yours"
        raise ConfigError(f"{key}={target}: is not allowed{hint}; valid: {VALID}")
    found = _find(key, target)
    home = getattr(found, "__module__", None) or type(found).__module__
    if not isinstance(home, str) or not trust.covers(home) or (_within(home, "torch") and not inspect.isclass(found)):
        raise ConfigError(f"{key}={target}: leads to code of {home}, which is not allowed; valid: {VALID}")
    return found


def _find(key: str, target: str) -> Any:
    """Import the longest module that ``target`` begins with, and follow its attributes from there."""
    names = target.split(".")
    if not all(name.isidentifier() for name in names):
        raise ConfigError(f"{key}={target}: is not a dotted name")
    found: Any = None
    for size in range(1, len(names) + 1):
        module = ".".join(names[:size])
        if size > 1 and not hasattr(found, "__path__"):
            break
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise ConfigError(f"{key}={target}: importing {module} failed: {error}") from error
            if size == 1:
                raise ConfigError(f"{key}={target}: there is no package {module} on the Python path") from error
            break
        except Exception as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"{key}={target}: importing {module} failed: {type(error).__name__}: {text}") from error
    for name in names[len(found.__name__.split(".")) :]:
        if not hasattr(found, name):
            names = [n for n, v in vars(found).items() if callable(v) and not n.startswith("_")]
            raise ConfigError(f"{key}={target}: {unknown('name', name, names)}")
        found = getattr(found, name)
    return found


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")
