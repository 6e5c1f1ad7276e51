"""A command line with a config: Hydra composes it, each run that it describes is run; the worst exit code counts."""

from __future__ import annotations

import errno
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipezoo.cli.signals import arrived, interrupted
from pipezoo.cli.typed_words import start_timeout
from pipezoo.config.misread import check_words
from pipezoo.config.overrides import config_dirs, is_hydras, key_of, parted
from pipezoo.errors import ConfigError, OutputError, PipezooError
from pipezoo.supervisor.start_deadline import begin_deadline, end_deadline

if TYPE_CHECKING:
    from pipezoo.cli.request import Request


def hydra_command(typed: Sequence[str], of_folder: Sequence[str] = ()) -> int:
    """Compose the config that the words describe, and run it, or all of them; the exit code.

    Args:
        typed: by a person, who alone says what is trusted and what Hydra itself runs.
        of_folder: that a folder brings, values of known keys and nothing else; what is typed wins.
    """
    from pipezoo.cli.hydra_app import Sweep, run_hydra
    from pipezoo.cli.resume import SweepRefused, resumed
    from pipezoo.cli.world import words_in_a_world
    from pipezoo.config.compose import trusted_by

    sweeps: list[Sweep] = []
    codes = [0]
    words = [*of_folder, *typed]
    as_typed = typed

    def perform(request: Request) -> float:
        result = _perform(replace(request, words=tuple(words)))
        if request.sweep is None:
            codes.append(int(result))
        return result

    try:
        begin_deadline(start_timeout(words))
        check_words(typed)
        typed, of_folder = words_in_a_world(typed, of_folder)
        words = [*of_folder, *typed]
        trust = trusted_by(typed)
        words = resumed(*parted(words), config_dirs(typed))
        _check_names(words)
        run_hydra(words, trust, perform, sweeps)
    except KeyboardInterrupt as error:
        return _interrupted(error, [sweep.folder for sweep in sweeps], as_typed)
    except SweepRefused as refusal:
        return _tell(refusal.error, words)
    except Exception as error:
        error = end_deadline() or error  # which somebody may have taken for an error of a config
        if (
            interrupt := arrived()
        ) is not None:  # what was raised when it came ended in the error of somebody's `finally`
            return _interrupted(interrupt, [sweep.folder for sweep in sweeps], as_typed)
        codes.append(_tell(error, words))
    finally:
        end_deadline()
        for sweep in sweeps:
            sweep.let_go()
    if sweeps:
        from pipezoo.cli.sweep import end_of_sweep

        codes.append(end_of_sweep(sweeps[-1].folder))
    return max(codes)


def _perform(request: Request) -> float:
    """The exit code of a run; the objective of one of a sweep."""
    from pipezoo.cli.run import run
    from pipezoo.cli.sweep_worker import run_in_worker

    print_line = partial(print, flush=True)
    if request.sweep is None:
        return run(request, print_line)
    end_deadline()  # its process has one of its own
    return run_in_worker(request, print_line)


def _interrupted(error: KeyboardInterrupt, sweeps: Sequence[Path], typed: Sequence[str]) -> int:
    """Say so, and what a sweep came to until then; the exit code."""
    code, line = interrupted(error)
    print(line, file=sys.stderr)
    if sweeps:
        from pipezoo.cli.sweep import end_of_sweep

        end_of_sweep(sweeps[-1])
        print(
            f"python -m pipezoo -m {shlex.join([f'sweep.resume={sweeps[-1]}', *_said_again(typed)])}  goes on with it"
        )
    return code


def _said_again(typed: Sequence[str]) -> list[str]:
    """What no folder says for a person: code that is trusted, and what Hydra itself runs."""
    options, overrides = parted(typed)
    of_hydra = [word for word in overrides if is_hydras(word) and key_of(word) not in ("hydra.sweep.dir", "hydra.mode")]
    trust = [word for word in overrides if key_of(word) == "trust"]
    return [word for word in options if word not in ("-m", "--multirun")] + trust + of_hydra


def _tell(error: Exception, words: Sequence[str]) -> int:
    """Say in one line what Hydra raised before or between the runs; its exit code."""
    from pipezoo.cli.outcome import ending
    from pipezoo.config.config_errors import explain
    from pipezoo.experiment.registry import conf_dir

    told = explain(error, words, [conf_dir(), *config_dirs(words)]) or _unwritable(error, words) or error
    code, line = ending(told)
    if "debug=true" in words or not isinstance(told, PipezooError):
        traceback.print_exception(error)
    print(line, file=sys.stderr)
    return code


def _check_names(words: Sequence[str]) -> None:
    """A user's YAML file with the name of one of ours would not be read, and nobody would say so."""
    from pipezoo.experiment.registry import conf_dir

    for folder in config_dirs(words):
        hidden = []
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder)
            if not file.is_file():
                raise ConfigError(f"--config-dir={folder}: {name} is no regular file")
            ours = conf_dir() / name
            if ours.is_file() and ours.read_bytes() != file.read_bytes():
                hidden.append(str(name))
        if hidden:
            what = "have names of" if len(hidden) > 1 else "has the name of one of"
            them = "them" if len(hidden) > 1 else "it"
            raise ConfigError(f"--config-dir={folder}: {', '.join(hidden)} {what} pipezoo's own files; rename {them}")


def _unwritable(error: Exception, words: Sequence[str]) -> PipezooError | None:
    """Hydra makes the folder of a run before we are asked, and looks for a group's option under any name."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        longest = max(parted(words)[1], key=len)
        kind = OutputError if longest.startswith("hydra.") else ConfigError
        return kind(f"{longest[:40]}...: is too long for a name; it has {len(longest)} characters")
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return OutputError(f"hydra.run.dir={error.filename}: cannot be made: {error.strerror}")
