"""The command line.

python -m pipezoo key=value ...            train; `verify`, `simulate`, `plan` as first word are task=...
python -m pipezoo -m key=a,b ...           a sweep
python -m pipezoo report FOLDER            what a run left behind; reads files, needs neither torch nor Hydra
python -m pipezoo explain FOLDER           why it was as fast as it was, and what would make it faster
python -m pipezoo studio                   a page on which an order is edited
python -m pipezoo rerun FOLDER             once more, and what came out differently
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

from pipezoo.cli.signals import catch_signals, interrupted
from pipezoo.cli.streams import mend_streams
from pipezoo.errors import ConfigError
from pipezoo.found_world import HalfAWorldError, found_world
from pipezoo.installed import version
from pipezoo.supervisor import save_signal
from pipezoo.supervisor.garbage import pause_collection
from pipezoo.supervisor.processes import end_with_starter, exit_now

READERS = ("--version", "version", "report", "explain", "studio")  # what reads files, and starts no process


def main(words: Sequence[str] | None = None) -> None:
    """Run a command line, that of this process where none is given, and leave with its exit code."""
    mend_streams()
    catch_signals()
    save_signal.catch()
    pause_collection()  # imports make hardly any garbage, and looking for it takes a fifth of their time
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # no thread pool in a process that forks; ranks set their own number
    try:
        code = in_its_world(sys.argv[1:] if words is None else words)
    except KeyboardInterrupt as error:
        code, line = interrupted(error)
        print(line, file=sys.stderr)
    leave(code)


def in_its_world(words: Sequence[str]) -> int:
    """The exit code of one command line: of the first process of a world, or of one that is in none.

    Every other process of a world does what the first one says, and has its exit code.
    """
    if "COMP_LINE" in os.environ:
        return command(words)
    try:
        found = found_world(os.environ)
    except HalfAWorldError as half:
        if half.speaks:
            print(f"error: {half}", file=sys.stderr)
        return half.exit_code
    if found is None:
        return command(words)
    if words and words[0] in READERS:
        return 0 if found.rank else command(words)
    from pipezoo.cli.attempts import ended_for_good, tell_how_it_ended
    from pipezoo.cli.typed_words import start_timeout, world_port
    from pipezoo.cli.world import follow
    from pipezoo.supervisor.world_host import host

    if found.has_store:  # torchrun's agent; Slurm ends the processes of a step itself
        end_with_starter()
    if found.rank:
        return follow(found, words)
    world = host(found, words, world_port(words), start_timeout(words))
    code = ConfigError.exit_code
    try:
        code = ended_for_good(world) or command(words)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except KeyboardInterrupt as error:
        code, _ = interrupted(error)
        raise
    finally:
        tell_how_it_ended(world, code)
        world.leave(code)
    return code


def leave(code: int) -> None:
    """End this process: what was registered with ``atexit`` runs, but torch is not torn down, which takes a second."""
    if "torch" not in sys.modules or "joblib" in sys.modules:  # joblib's workers end with the interpreter
        sys.exit(code)
    atexit._run_exitfuncs()
    exit_now(code)


def command(words: Sequence[str]) -> int:
    """The exit code of one command line."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that the console script finds the same packages
    first = words[0] if words else ""
    if first in ("--version", "version"):
        print(f"pipezoo {version()}")
        return 0
    if first == "report":
        from pipezoo.report.__main__ import main as report

        return report(list(words[1:]))
    if first == "explain":
        from pipezoo.explain.__main__ import main as explain

        return explain(list(words[1:]))
    if first == "studio":
        from pipezoo.studio.__main__ import main as studio

        return studio(list(words[1:]))
    if first == "rerun":
        from pipezoo.cli.rerun import main as rerun

        return rerun(list(words[1:]))
    if "COMP_LINE" in os.environ and (found := _completions(words)) is not None:
        print(" ".join(found))
        return 0
    if first == "help":
        words = ["--help", *words[1:]]
    from pipezoo.cli.hydra_command import hydra_command

    return hydra_command(respell(words))


def _completions(words: Sequence[str]) -> list[str] | None:
    from pipezoo.cli.completion import completions

    return completions(words, os.environ)


def respell(words: Sequence[str]) -> list[str]:
    """The command line as Hydra takes it: options first, a task as first word, an experiment with or without +.

    A schedule may have torch's name.
    """
    from pipezoo.config.overrides import parted, with_our_schedules
    from pipezoo.experiment.experiment import TASKS

    options, overrides = parted(words)
    if overrides and overrides[0] in TASKS:
        overrides[0] = f"task={overrides[0]}"
    overrides = [with_our_schedules(word) for word in overrides]
    return options + [word.removeprefix("+") if word.startswith("+experiment=") else word for word in overrides]
