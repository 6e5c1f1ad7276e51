"""Which code a config may name at ``_target_``. A file of settings must not be able to run anything on the machine.

    model._target_=              allowed                                      refused
      pipezoo.models.GPT         ours: what conf/model/*.yaml names, models    pipezoo.results.run_dir.write_text
      torch.nn.GELU              torch's: modules, as model and loss and       torch.load, torch.hub.load
                                 in them; optimizers, as optimizer
      my_package.Net             the user's: packages named by trust=, and     sympy.sympify, os.system,
                                 those in or beside a --config-dir             hydra.utils.instantiate

Ours and torch's are allowed by role: a cost is no model, and what a schedule nests is neither. The name is judged
before anything is imported, and the object it leads to is judged again by where it was defined.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.experiment.registry import registered
from pipezoo.foreign_import import declare_operators, import_foreign
from pipezoo.results.renamed import new_target
from pipezoo.validators import unknown

OURS, TORCH = "pipezoo", "torch"
MODULE, OPTIMIZER = "torch.nn.modules.module.Module", "torch.optim.optimizer.Optimizer"
LOADER = "torch.utils.data.dataloader.DataLoader"
SCHEDULE = "torch.optim.lr_scheduler.LRScheduler"
BASES = {  # what these must be subclasses of
    "model": MODULE,
    "loss": MODULE,
    "optimizer": OPTIMIZER,
    "lr_schedule": SCHEDULE,
}
NESTED_BASES = {"model": MODULE, "loss": MODULE, "data": LOADER}  # and inside of them, where it is ours or torch's
HOMES = {
    MODULE: ("torch.nn", "pipezoo.models", "pipezoo.losses"),
    OPTIMIZER: ("torch.optim",),
    LOADER: ("torch.utils.data",),
    SCHEDULE: ("torch.optim.lr_scheduler",),
}
OF_TORCH = ("torch.nn", "torch.optim")
NEVER = {
    TORCH: "torch beyond its modules and optimizers",
    OURS: "pipezoo beyond what conf/ names",
    "hydra": "Hydra, which runs what it is told,",
    "hydra_plugins": "Hydra, which runs what it is told,",
    "omegaconf": "OmegaConf, which runs what it is told,",
}
VALID = "what conf/ names, modules and optimizers of torch, packages named by trust=, packages beside a --config-dir"


@dataclass(frozen=True)
class Allowlist:
    """What the command line trusts besides pipezoo and torch's modules.

    Args:
        packages: dotted names, from ``trust=``; each with all below it.
        folders: of YAML files, from ``--config-dir``; each with the packages and modules in it and beside it.
    """

    packages: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for package in self.packages:
            root = package.partition(".")[0]
            if not all(name.isidentifier() for name in package.split(".")):
                raise ConfigError(f"trust={package}: is not the name of a package")
            if root in NEVER or root in sys.stdlib_module_names:
                raise ConfigError(f"trust={package}: {NEVER.get(root, 'the standard library')} is never trusted")

    def covers(self, module: str) -> bool:
        """Whether the user trusts what is defined in ``module``."""
        root = module.partition(".")[0]
        if root in NEVER or root in sys.stdlib_module_names:
            return False
        return any(_within(module, package) for package in self.packages) or self.is_own(root)

    def is_own(self, root: str) -> bool:
        """Whether ``import root`` finds a package or module in or beside one of the folders. Imports nothing."""
        for base in self._bases():
            if _has(base, root):
                places = _places(root)
                if not places and str(base) not in sys.path:
                    sys.path.append(str(base))  # behind all others, so that nothing else is found there instead
                    places = _places(root)
                return bool(places) and all(place.is_relative_to(base) for place in places)
        return False

    def word_for(self, root: str) -> str:
        """The word of the command line that a package is trusted by."""
        return "trust=" if any(package.partition(".")[0] == root for package in self.packages) else "--config-dir"

    def _bases(self) -> Iterator[Path]:
        for folder in self.folders:
            yield Path(folder).resolve()
            yield Path(folder).resolve().parent


def resolve(key: str, target: str, trust: Allowlist) -> Any:
    """The object with the dotted name ``target``, which stands at ``key``, like ``model._target_``.

    Raises:
        ConfigError: ``key=target:`` is not allowed there, or there is no such thing.
    """
    group, *inside = key.split(".")[:-1]
    base = (NESTED_BASES if inside else BASES).get(group, "")
    ours = frozenset() if inside else registered(group)
    if target not in ours and not trust.covers(target) and not _is_of(target, base):
        raise ConfigError(f"{key}={target}: {_refusal(group, target, trust)}")
    found = _find(key, target)
    home = getattr(found, "__module__", None) or type(found).__module__
    if base and inspect.isclass(found) and _is_of(home, base) and base not in ancestors(found):
        raise ConfigError(f"{key}={target}: is not a subclass of {base}")
    if not isinstance(home, str) or not _leads_home(found, home, target in ours, base, trust):
        raise ConfigError(f"{key}={target}: leads to code of {home}, which is not allowed there; valid: {VALID}")
    return found


def place_of(root: str) -> str:
    """The file or folder that ``import root`` reads."""
    return ", ".join(str(path.parent if path.name == "__init__.py" else path) for path in _places(root)[:1])


def ancestors(found: Any) -> set[str]:
    """The dotted names of a class and of all that it is derived from."""
    return {f"{base.__module__}.{base.__qualname__}" for base in getattr(found, "__mro__", ())}


def _leads_home(found: Any, home: str, is_registered: bool, base: str, trust: Allowlist) -> bool:
    if is_registered and _within(home, OURS):
        return True
    if inspect.isclass(found) and base and any(_within(home, package) for package in HOMES[base]):
        return True
    return trust.covers(home)


def _is_of(target: str, base: str) -> bool:
    """Whether a name may be looked up for what is derived from ``base``; which of them is, the object says."""
    return bool(base) and any(_within(target, package) for package in (*HOMES[base], *OF_TORCH))


def _refusal(group: str, target: str, trust: Allowlist) -> str:
    if new := new_target(target):
        return f"is now called {new}"
    root = target.partition(".")[0]
    if root == OURS and (names := registered(group)):
        return f"is not allowed there; {unknown(group, target, names)}"
    if root in NEVER or root in sys.stdlib_module_names or not root.isidentifier():
        return f"is not allowed there; valid: {VALID}"
    if not _places(root):
        return f"there is no package {root} on the Python path"
    own = " (another package of that name is found first)" if any(_has(base, root) for base in trust._bases()) else ""
    return f"is not allowed{own}; add trust={root} to the command line if it is yours; valid: {VALID}"


def _has(base: Path, root: str) -> bool:
    return (base / f"{root}.py").is_file() or (base / root).is_dir()


def _places(root: str) -> list[Path]:
    """The files or folders that ``import root`` would read; empty where it would find nothing."""
    try:
        spec = getattr(sys.modules.get(root), "__spec__", None) or importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    found = list(spec.submodule_search_locations or ()) or ([spec.origin] if spec.origin else [])
    return [Path(place).resolve() for place in found]


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
            found = import_foreign(module)
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
        if not _has_attribute(key, target, found, name):
            names = [n for n in dir(found) if not n.startswith("_") and callable(getattr(found, n, None))]
            raise ConfigError(f"{key}={target}: {unknown('name', name, names)}")
        found = getattr(found, name)
    return found


def _has_attribute(key: str, target: str, found: Any, name: str) -> bool:
    """Whether there is such a name; a package may import a module of its own to find it."""
    try:
        return hasattr(found, name)
    except Exception as error:
        if declare_operators():
            return _has_attribute(key, target, found, name)
        text = " ".join(str(error).split())
        raise ConfigError(f"{key}={target}: importing {name} failed: {type(error).__name__}: {text}") from error


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")
