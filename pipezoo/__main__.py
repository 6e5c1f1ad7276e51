"""The command line.

python -m pipezoo key=value ...            train; `verify`, `simulate`, `plan` as first word are task=...
python -m pipezoo -m key=a,b ...           a sweep
python -m pipezoo report FOLDER            what a run left behind; reads files, needs neither torch nor Hydra
python -m pipezoo rerun FOLDER             once more, and what came out differently
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipezoo.cli.compose_subprocess import compose_apart
from pipezoo.cli.signals import catch_signals, interrupted
from pipezoo.errors import ConfigError, OutputError, PipezooError
from pipezoo.supervisor.processes import exit_now, unsafe_to_fork

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipezoo.cli.run import Request

TASKS = ("train", "verify", "simulate", "plan")
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd", "--config-name", "-cn")
PLAIN_OPTIONS = ("-m", "--multirun", "--config-dir", "-cd")  # with these a command runs something
TRAINING = ("task=train", "task=verify")
TORCH = ("torch.distributed.pipelining", "pipezoo.tasks.train")
ON_FOLDERS = {"report": "pipezoo.report.__main__", "rerun": "pipezoo.cli.rerun"}


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    gc.disable()  # imports make hardly any garbage, and looking for it takes a fifth of their time; `run` enables it
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # no thread pool in a process that forks; ranks set their own number
    catch_signals()
    try:
        code = command(sys.argv[1:])
    except KeyboardInterrupt as error:
        code, line = interrupted(error)
        print(line, file=sys.stderr)
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    if "torch" in sys.modules and "joblib" not in sys.modules:
        exit_now(code)  # torch takes longer to tear down than a short run takes
    sys.exit(code)


def command(words: Sequence[str]) -> int:
    """The exit code of one command line."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that the console script finds the same packages
    if words and words[0] in ON_FOLDERS:
        code: int = importlib.import_module(ON_FOLDERS[words[0]]).main(list(words[1:]))
        return code
    return hydra_command(respell(words))


def respell(words: Sequence[str]) -> list[str]:
    """The command line as Hydra takes it: options first, a task as first word, an experiment with or without +."""
    options, overrides = parted(words)
    if overrides and overrides[0] in TASKS:
        overrides[0] = f"task={overrides[0]}"
    return options + [word.removeprefix("+") if word.startswith("+experiment=") else word for word in overrides]


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a command line with their values, and its overrides."""
    options: list[str] = []
    overrides: list[str] = []
    before = ""
    for word in words:
        of_option = before in WITH_VALUE and "=" not in word
        (options if word.startswith("-") or of_option else overrides).append(word)
        before = word
    return options, overrides


def hydra_command(words: Sequence[str]) -> int:
    """Compose the config that ``words`` describe, and run it, or all of them."""
    words = list(words)
    if any(word.startswith("sweep.resume=") for word in words):
        from pipezoo.cli.resume import resumed

        try:
            words = resumed(*parted(words), config_dirs(words))
        except ConfigError as error:
            return _tell(error, words)
    os.environ["PIPEZOO_TRUST"] = json.dumps(trusted_by(words))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us whole, and we word them
    sys.argv = [sys.argv[0], *words]
    if not will_import_torch(words):
        return _compose(words, _perform)
    importlib.import_module("pipezoo.cli.sweep_worker")  # before the fork: both processes need most of it
    sweeps: list[Path] = []

    def perform(request: Request) -> float:
        sweeps.extend([request.sweep] if request.sweep else [])
        return _perform(request)

    try:
        return compose_apart(partial(_compose_for_another, words), TORCH, perform)
    except KeyboardInterrupt as error:
        return _interrupted(error, sweeps)


def will_import_torch(words: Sequence[str]) -> bool:
    """Whether it is as good as certain, before anything is composed, that this process is to train, and can fork."""
    options, overrides = parted(words)
    keys = [word.partition("=")[0].lstrip("+~") for word in overrides]
    if not all(word.startswith(PLAIN_OPTIONS) or before in PLAIN_OPTIONS for before, word in pairwise(["", *options])):
        return False
    if "experiment" in keys or any(key.startswith("hydra/") for key in keys):
        return False  # whatever those want
    if any(key == "task" and word not in TRAINING for key, word in zip(keys, overrides, strict=True)):
        return False
    return "torch" not in sys.modules and not unsafe_to_fork()


def _compose_for_another(words: Sequence[str], ask: Callable[[Request], float]) -> int:
    """Compose, and have another process run what can be run."""

    def perform(request: Request) -> float:
        if request.sweep is None:
            try:
                request.experiment()
            except ConfigError:
                return _perform(request)  # which says so at once
        return ask(request)

    return _compose(words, perform)


def _perform(request: Request) -> float:
    """The exit code of a run; the objective of one of a sweep."""
    from pipezoo.cli.run import run
    from pipezoo.cli.sweep_worker import run_in_worker

    def print_line(line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:  # the reader has seen enough, but the run is not done
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return run(request, print_line) if request.sweep is None else run_in_worker(request, print_line)


def _compose(words: Sequence[str], perform: Callable[[Request], float]) -> int:
    """Have Hydra compose what ``words`` describe, and hand it on to ``perform``; the exit code."""
    import hydra

    from pipezoo.cli.hydra_app import SWEEP
    from pipezoo.cli.resume import SweepRefused
    from pipezoo.experiment.registry import conf_dir

    codes = [0]

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(cfg: DictConfig) -> float | None:
        from pipezoo.cli.hydra_app import request_of

        request = request_of(cfg)
        came_to = perform(request)
        if request.sweep is not None:
            return came_to
        codes.append(int(came_to))
        return None

    try:
        _check_names(words, conf_dir())
        job()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as error:
        return _interrupted(error, SWEEP)
    except SweepRefused as refusal:
        return _tell(refusal.error, words)
    except Exception as error:
        codes.append(_tell(error, words))
    if SWEEP:
        from pipezoo.cli.sweep import end_of_sweep

        codes.append(end_of_sweep(SWEEP[-1]))
    return max(codes)


def _interrupted(error: KeyboardInterrupt, sweeps: Sequence[Path]) -> int:
    """Say so, and what a sweep came to until then; the exit code."""
    code, line = interrupted(error)
    print(line, file=sys.stderr)
    if sweeps:
        from pipezoo.cli.sweep import end_of_sweep

        end_of_sweep(sweeps[-1])
        print(f"python -m pipezoo -m sweep.resume={shlex.quote(str(sweeps[-1]))}  goes on with it")
    return code


def _tell(error: Exception, words: Sequence[str]) -> int:
    """Say in one line what Hydra raised before or between the runs; its exit code."""
    from pipezoo.cli.run import ending
    from pipezoo.config.config_errors import explain
    from pipezoo.experiment.registry import conf_dir

    told = explain(error, words, [conf_dir(), *config_dirs(words)]) or _unwritable(error) or error
    code, line = ending(told)
    if "debug=true" in words or not isinstance(told, PipezooError):
        traceback.print_exception(error)
    print(line, file=sys.stderr)
    return code


def _check_names(words: Sequence[str], ours: Path) -> None:
    """A user's YAML file with the name of one of ours would not be read, and nobody would say so."""
    for folder in config_dirs(words):
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder)
            if (ours / name).is_file() and (ours / name).read_bytes() != file.read_bytes():
                raise ConfigError(
                    f"--config-dir={folder}: {name} has the name of one of pipezoo's own files; rename it"
                )


def _unwritable(error: Exception) -> OutputError | None:
    """Hydra makes the folder of a run before we are asked."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return OutputError(f"hydra.run.dir={error.filename}: cannot be made: {error.strerror}")


def config_dirs(words: Sequence[str]) -> list[Path]:
    """The folders of YAML files that the command line adds."""
    found = []
    for at, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            found.append(Path(value or "".join(words[at + 1 : at + 2])))
    return found


def trusted_by(words: Sequence[str]) -> dict[str, object]:
    """What the command line trusts: packages by name, and those of a config folder of the user's."""
    names = [word.lstrip("+").partition("=")[2] for word in words if word.lstrip("+").startswith("trust=")]
    packages = [name.strip(" '\"") for text in names for name in text.strip("[]").split(",")]
    return {
        "packages": [name for name in packages if name],
        "folders": [str(path.absolute()) for path in config_dirs(words)],
    }


if __name__ == "__main__":
    main()
