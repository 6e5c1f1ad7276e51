"""``sweep.resume=FOLDER``: a sweep that was cut short goes on where it stopped.

    FOLDER/sweep.json    what it was started with     typed again, unless the same is typed
           0/  ok                                     kept
           1/  interrupted, failed, killed            moved to .before/1.1, and run anew from its beginning
           2/  nothing                                run

No run is mixed up with another: one whose config is not what its folder holds, and one that still runs in another
process, end the sweep before they are touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.cli.folder_lock import lock_folder, locked
from pipezoo.cli.folder_words import values_alone
from pipezoo.cli.outcome import result_of
from pipezoo.cli.request import Request
from pipezoo.config.compose import groups, keys
from pipezoo.config.overrides import OF_THIS_COMMAND_LINE, is_hydras, key_of, leaves, literal
from pipezoo.errors import ConfigError, OutputError, PipezooError
from pipezoo.results.committed import write_gitignore
from pipezoo.results.run_dir import CONFIG, RESULT, write_json
from pipezoo.tasks.terminal import PrintLine
from pipezoo.validators import regular_file

KEY = "sweep.resume"
NOTE = "sweep.json"  # what a sweep was started with
ASIDE = ".before"  # what runs left behind that were run anew
WHERE = "hydra.sweep.dir"


class SweepRefused(BaseException):
    """Ends a whole sweep, which Hydra would go on with after an Exception; ``error`` says why."""

    def __init__(self, error: PipezooError) -> None:
        super().__init__(error)
        self.error = error


# The command line ---------------------------------------------------------------------------------------------------


def asked_folder(overrides: Sequence[str]) -> Path | None:
    """The folder of the sweep that the command line wants to go on with."""
    values = [word.partition("=")[2].strip("'\"") for word in overrides if key_of(word) == KEY]
    return Path(values[-1]) if values and values[-1] != "null" else None


def resumed(options: Sequence[str], overrides: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """The command line that goes on with a sweep, from the one that asks for it and the one it was started with.

    Raises:
        ConfigError: there is no sweep, or it was started with other words.
    """
    folder = asked_folder(overrides)
    if folder is None:
        return [*options, *overrides]
    note = _note(folder)
    own = [word for word in overrides if key_of(word) != KEY]
    if WHERE in map(key_of, own):
        raise ConfigError(f"{KEY}={folder}: says where the sweep goes; leave {WHERE} out")
    if missing := [path for path in note["config_dirs"] if _resolved(path) not in map(_resolved, config_dirs)]:
        raise ConfigError(
            f"{KEY}={folder}: was started with your own YAML files, which count when you name them: "
            f"--config-dir {missing[0]}"
        )
    of_hydra = [word for word in own if is_hydras(word)]
    of_runs = [word for word in own if not is_hydras(word) and key_of(word) not in OF_THIS_COMMAND_LINE]
    if of_runs and of_runs != note["words"]:
        raise ConfigError(
            f"{KEY}={folder}: was started with {' '.join(note['words'])}; valid: the same words, or none of them"
        )
    _check_hydras(folder, note["hydra"], of_hydra)
    rest = [word for word in own if key_of(word) in OF_THIS_COMMAND_LINE]
    here = literal(str(folder))
    multirun = [] if {"-m", "--multirun"} & {*options} else ["-m"]
    return [*multirun, *options, *note["words"], *rest, *of_hydra, f"{WHERE}={here}", f"{KEY}={here}"]


def _check_hydras(folder: Path, before: Sequence[str], typed: Sequence[str]) -> None:
    """What Hydra itself runs is typed, and not taken from the folder; another launcher will do."""
    again = {key_of(word) for word in typed}
    other_launcher = any(_is_launchers(word) for word in typed)
    missing = [word for word in before if key_of(word) not in again and not (other_launcher and _is_launchers(word))]
    if missing:
        names = ", ".join(dict.fromkeys(key_of(word)[:60] for word in missing))
        raise ConfigError(f"{KEY}={folder}: was started with {names}, which count when they are typed again")


def begin(
    folder: Path, words: Sequence[str], of_hydra: Sequence[str], config_dirs: Sequence[str], goes_on: bool
) -> int:
    """Take the folder of a sweep and write down what was typed; returns what holds it, as :func:`lock_folder` does.

    Raises:
        SweepRefused: it is another sweep's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holder = lock_folder(folder)
    except OSError as error:
        raise SweepRefused(OutputError(f"{WHERE}={folder}: cannot be written: {error.strerror or error}")) from error
    if holder is None and goes_on:
        raise SweepRefused(ConfigError(f"{KEY}={folder}: still runs in another process"))
    if holder is None:
        raise SweepRefused(OutputError(f"{WHERE}={folder}: a sweep is running there in another process"))
    if goes_on:
        return holder
    if (folder / NOTE).exists() and any(folder.glob(f"*/{RESULT}")):
        raise SweepRefused(OutputError(f"{WHERE}={folder}: already holds a sweep; {KEY}={folder} goes on with it"))
    note = {
        "words": [word for word in words if key_of(word) not in (*OF_THIS_COMMAND_LINE, KEY)],
        "hydra": [word for word in of_hydra if key_of(word) not in (WHERE, "hydra.mode")],
        "config_dirs": [_short(path) for path in config_dirs],
    }
    try:
        write_json(folder / NOTE, note)
    except OutputError as error:
        raise SweepRefused(error) from error
    write_gitignore(folder)
    return holder


@cache
def takes_what_applies(sweep: Path) -> bool:
    """Whether a sweep goes over all options that a ``glob`` finds, of which some need not fit the rest."""
    try:
        return any("glob(" in word for word in json.loads((sweep / NOTE).read_text(encoding="utf-8"))["words"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


# Its runs -----------------------------------------------------------------------------------------------------------


def done_already(request: Request, print_line: PrintLine) -> dict[str, Any] | None:
    """The result of a run that came to its end before. None where it is to be run: what it left is out of its way.

    Raises:
        SweepRefused: it still runs elsewhere, or the folder holds another run.
    """
    if not request.goes_on or not (request.folder / RESULT).exists():
        return None
    with locked(request.folder) as is_free:
        if not is_free:
            raise _refused(request, f"run {request.folder.name} still runs in another process")
        if difference := _difference(request):
            why = f"run {request.folder.name} there has {difference}; valid: the config it was started with"
            raise _refused(request, why)
        result = result_of(request.folder)
        if result.get("status") == "ok":
            return result
        print_line(f"{request.title}  runs anew; what it left before is in {_move_aside(request)}")
    request.folder.mkdir()
    return None


def _refused(request: Request, why: str) -> SweepRefused:
    return SweepRefused(ConfigError(f"{KEY}={request.sweep}: {why}"))


def _difference(request: Request) -> str:
    """The first value that a run's folder has otherwise than the config of today."""
    try:
        before = dict(leaves(yaml.safe_load((request.folder / CONFIG).read_text(encoding="utf-8")) or {}))
    except (OSError, ValueError, yaml.YAMLError):
        return ""  # it ended before it was written down
    now = dict(leaves(request.files.get(CONFIG, {})))
    for key in dict.fromkeys([*before, *now]):
        if key.split(".")[0] not in OF_THIS_COMMAND_LINE and before.get(key) != now.get(key):
            there, here = (literal(values[key]) if key in values else "nothing" for values in (before, now))
            return f"{key}={there}, not {here}"
    return ""


def _move_aside(request: Request) -> Path:
    assert request.sweep is not None
    name = "-".join(request.folder.resolve().relative_to(request.sweep.resolve()).parts)
    aside = request.sweep / ASIDE
    aside.mkdir(exist_ok=True)
    number = next(number for number in count(1) if not (aside / f"{name}.{number}").exists())
    return request.folder.rename(aside / f"{name}.{number}")


def _note(folder: Path) -> dict[str, list[str]]:
    try:
        file: Mapping[str, Any] = json.loads(regular_file(folder / NOTE).read_text(encoding="utf-8"))
        note = {key: [str(word) for word in file[key]] for key in ("words", "hydra", "config_dirs")}
    except OSError:
        raise ConfigError(f"{KEY}={folder}: holds no sweep (there is no {NOTE})") from None
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ConfigError(f"{KEY}={folder}: {NOTE} is not the note of a sweep") from None
    return note | {"words": values_alone(note["words"], f"{KEY}={folder}: {NOTE}", keys(), groups())}


def _is_launchers(word: str) -> bool:
    return key_of(word).startswith(("hydra/launcher", "hydra.launcher"))


def _resolved(path: Path | str) -> str:
    return str(Path(path).resolve())


def _short(path: Path | str) -> str:
    """A path as another checkout finds it: from the working folder, if it is below."""
    resolved, here = Path(path).resolve(), Path.cwd().resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(resolved)
