"""A part of an experiment: what ``_target_`` and its arguments in a YAML file say, not yet called.

    model:                                   Component("model", "example_code", "pipezoo.models.ExampleCode", {...})
      _target_: pipezoo.models.ExampleCode
      d_hid: 512                             experiment.model()             -> ExampleCode(d_hid=512, splits=6)
      splits: 9                              ConfigError  model.splits=9: must be an int in 2..8

Its target is imported when it is needed and not before, so that a config whose error is elsewhere answers at once.
"""

from __future__ import annotations

import inspect
import re
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError, PipezooError, show
from pipezoo.experiment.allowlist import Allowlist, ancestors, resolve
from pipezoo.experiment.foreign_error import argument_of
from pipezoo.experiment.type_check import expected_by, fit, hints_of
from pipezoo.results.renamed import new_key
from pipezoo.validators import unknown

KEYS = {"num_stages": "stages", "num_ranks": "ranks", "num_microbatches": "microbatches"}  # as the user spells them
PATH = re.compile(r"[.]{0,2}/|~/")  # what begins like a path


@dataclass(frozen=True)
class Component:
    """Call it as the function or class it stands for; the arguments of the config are filled in.

    Args:
        group: the config group, like ``model``.
        choice: the word of the command line, like ``example_code``.
        target: dotted name of a function or class.
        arguments: what the YAML file and the command line say; plain values.
        role: dotted name of the class that the target must be a subclass of, or "" for none.
        given: names of the arguments that the caller will add.
        trust: whose code may be named besides ours.
        sources: for arguments that repeat another key of the config, that key: ``{"d_hid": "model.d_hid"}``.
        stages_argument: of a model that is told its number of stages, the name of that argument (``_stages_`` in its
            YAML file); "" for a model that is not.

    Calling, ``check`` and ``parameters`` raise ConfigError in the user's spelling.
    """

    group: str
    choice: str
    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    role: str = ""
    given: tuple[str, ...] = ()
    trust: Allowlist = field(default_factory=Allowlist)
    sources: Mapping[str, str] = field(default_factory=dict)
    stages_argument: str = ""

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The target itself, imported and judged."""
        found = resolve(f"{self.group}._target_", self.target, self.trust)
        if not callable(found):
            raise ConfigError(f"{self.group}._target_={self.target}: is neither a function nor a class")
        if self.role and inspect.isclass(found) and self.role not in ancestors(found):
            raise ConfigError(f"{self.group}._target_={self.target}: is not a subclass of {self.role}")
        function: Callable[..., Any] = found
        return function

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the target by name."""
        function = self.function
        anything = {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}
        try:
            found = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a callable written in C
            return anything
        return {**found, **anything} if _wraps_anything(function) else found

    def __getstate__(self) -> dict[str, Any]:
        """To another process go the fields; what was looked up is looked up there again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def stages_told(self) -> int | None:
        """The number of stages that the config tells a model, where it tells it one."""
        value = self.arguments.get(self.stages_argument)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def once(self, **given: Any) -> Any:
        """What a call made the first time, for functions whose result depends on their arguments alone."""
        key = tuple(sorted(given.items()))
        if key not in self._made:
            self._made[key] = self(**given)
        return self._made[key]

    @cached_property
    def _made(self) -> dict[tuple[tuple[str, Any], ...], Any]:
        return {}

    def takes(self, name: str) -> bool:
        """Whether the target has a parameter of this name."""
        return name in self.parameters

    def check(self) -> None:
        """Refuse a target that is not allowed, arguments it does not have, and missing ones. Calls nothing."""
        kinds = {parameter.kind for parameter in self.parameters.values()}
        anything = inspect.Parameter.VAR_KEYWORD in kinds
        names = [name for name, p in self.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        own = [name for name in names if name not in self.given]
        for name, value in self.arguments.items():
            if name not in own and not anything:
                if new := new_key(f"{self.group}.{name}"):
                    raise ConfigError(f"{self.group}.{name}={show(value)}: is now called {new}")
                raise ConfigError(f"{self.group}.{name}={show(value)}: {unknown('key', name, own)}")
        for name in own:
            if name not in self.arguments and self.parameters[name].default is inspect.Parameter.empty:
                raise ConfigError(f"{self.group}.{name}: is missing, and {self.group}={self.choice} needs it")

    def check_values(self) -> None:
        """:meth:`check`, and refuse values that are not what their annotations say. Calls nothing."""
        self.check()
        if misfit := self._misfit():
            raise misfit

    def __call__(self, **given: Any) -> Any:
        """Call the target with the arguments of the config and those ``given``, which win.

        A part of pipezoo says itself which values it takes, as it knows the range; what its annotation does not allow
        is refused all the same, so nothing slips through where it forgot.
        """
        self.check()
        arguments = {**self._built(), **given}
        misfit = self._misfit()
        if misfit and not self.target.startswith("pipezoo."):
            raise misfit
        try:
            made = self.function(**arguments)
        except Exception as error:
            if isinstance(error, ValueError) and (spelled := self._spell(error, given)):
                raise spelled from error
            if misfit:
                raise misfit from error
            if isinstance(error, PipezooError) and type(error) is not ConfigError:
                raise
            raise self.reword(error, given) from error
        if misfit:
            raise misfit
        if self.role and self.role not in ancestors(type(made)):
            what = f"{type(made).__module__}.{type(made).__qualname__}"
            raise ConfigError(f"{self.group}._target_={self.target}: made a {what}, which is no {self.role}")
        return made

    def reword(self, error: Exception, given: Mapping[str, Any] | None = None) -> ConfigError:
        """``error``, which this part raised, as one line in the user's spelling."""
        if type(error) is ConfigError:
            return error
        if isinstance(error, OSError) and (name := self._nowhere()):
            return ConfigError(f"{self._key(name)}={self.arguments[name]}: no such file or folder")
        if spelled := self._spell(error, given or {}):
            return spelled
        text = " ".join(str(error).split()) or "no reason given"
        if not isinstance(error, ValueError):
            text = f"{type(error).__name__}: {text[:300]} ({_place(error)})"
        argument = error if isinstance(error, ArgumentError) else None
        return ConfigError(f"{self.group}={self.choice}: {text}", argument, text)

    def _spell(self, error: Exception, given: Mapping[str, Any]) -> ConfigError | None:
        """The error of one argument, under the key that the user knows it by; None where the user knows none."""
        refused = error.argument if isinstance(error, ConfigError) else error
        if not isinstance(refused, ArgumentError):
            if isinstance(error, PipezooError) or (found := argument_of(error, self._known(given))) is None:
                return None
            refused = found
        name = refused.argument
        if name in self.arguments or (name in self.parameters and name not in given):
            return ConfigError(refused.at(self._key(name)), refused, refused.why)
        if name in given and name in KEYS:
            return ConfigError(refused.at(KEYS[name]), refused, refused.why)
        return None

    def _nowhere(self) -> str | None:
        """The first argument that is written as a path and leads nowhere: libraries take it for a name on the net."""
        paths = {name: value for name, value in self.arguments.items() if isinstance(value, str) and "\0" not in value}
        return next((name for name, path in paths.items() if PATH.match(path) and not _exists(path)), None)

    def _known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the arguments that the user has a key for."""
        return {**{name: value for name, value in given.items() if name in KEYS}, **self.arguments}

    def _key(self, name: str) -> str:
        """The key that an argument's value was typed at."""
        return self.sources.get(name, f"{self.group}.{name}")

    def _misfit(self) -> ConfigError | None:
        """The first argument whose value is not what its annotation says."""
        hints = hints_of(self.function)
        for name, value in self.arguments.items():
            if name in hints and not _is_component(value) and not fit(value, hints[name]):
                return ConfigError(f"{self._key(name)}={show(value)}: must be {expected_by(hints[name])}")
        return None

    def _built(self) -> dict[str, Any]:
        """The arguments, those that are parts themselves (a dict with ``_target_``) called.

        Where a function without arguments is asked for, it is the part itself, to be called as often as one likes.
        """
        hints = hints_of(self.function)
        built = {
            name: self._build(name, value, uncalled=typing.get_args(hints.get(name))[:1] == ([],))
            for name, value in self.arguments.items()
        }
        return {name: tuple(value) if _wants_tuple(hints.get(name), value) else value for name, value in built.items()}

    def _build(self, name: str, value: Any, uncalled: bool = False) -> Any:
        if not _is_component(value):
            return value
        inner = {key: item for key, item in value.items() if key != "_target_"}
        part = Component(f"{self.group}.{name}", self.choice, value["_target_"], inner, trust=self.trust)
        return part if uncalled else part()


def _wraps_anything(function: Callable[..., Any]) -> bool:
    """Whether a class's constructor takes any keyword, whatever the one that it wraps says: as configs of models do."""
    made = vars(function).get("__init__") if inspect.isclass(function) else None
    if not callable(made) or not hasattr(made, "__wrapped__"):
        return False
    kinds = inspect.signature(made, follow_wrapped=False).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in kinds)


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # too long, nobody's home
        return False


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("_target_"), str)


def _wants_tuple(hint: Any, value: Any) -> bool:
    return isinstance(value, list) and not fit(value, hint, exactly=True) and fit(tuple(value), hint, exactly=True)


def _place(error: Exception) -> str:
    """File and line that raised, for a person who wrote that file."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    theirs = [frame for frame in frames if "site-packages" not in frame.filename and __file__ != frame.filename]
    theirs = [frame for frame in theirs if not frame.filename.startswith(ours)] or theirs or list(frames)
    return f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}; debug=true shows the traceback"
