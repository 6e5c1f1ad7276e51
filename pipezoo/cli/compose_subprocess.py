"""Hydra in a process of its own, while this one imports torch: the two longest parts of a start, done at once.

    this process ──fork──> Hydra: composes, asks for a run ──> its exit code, its objective
         │                      │   ^                               (a sweep asks for one after the other)
    imports torch          request  answer
         └──────────────> performs it, its ranks are its children

Whoever sees this process sees the whole command: Ctrl-C comes here, and with it go all others. When there is nothing to
run (an error, a question to Hydra), the other process says so and ends, and the import is left where it is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from types import FrameType
from typing import Any, NoReturn

from pipezoo.cli.signals import Terminated, interrupted
from pipezoo.errors import PipezooError
from pipezoo.supervisor.processes import death, die_with_parent, exit_now

Ask = Callable[[Any], Any]  # a request, and what came of it


def compose_apart(compose: Callable[[Ask], int], modules: Sequence[str], perform: Ask) -> int:
    """Call ``compose`` in a child and ``perform`` here with each thing that it asks for; its exit code.

    Where it asks for nothing, this process leaves with that code as soon as it is known.

    Args:
        compose: is given the function to ask with; must not use signals.
        modules: what ``perform`` needs, imported here in the meantime.

    Raises:
        KeyboardInterrupt: the child is gone.
    """
    ours, theirs = Pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        _be_the_child(compose, theirs, parent)
    theirs.close()
    try:
        _import(modules, child)
        _serve(ours, perform)
        return _code(os.waitpid(child, 0)[1])
    except BaseException:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    finally:
        ours.close()


def _code(status: int) -> int:
    """The exit code that a child ended with."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"error: the process that composes the config {death(code)}", file=sys.stderr)
        return 1
    return code


def _be_the_child(compose: Callable[[Ask], int], line: Connection, parent: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        die_with_parent(parent)
        code = compose(lambda request: _ask(line, request))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except BaseException:
        traceback.print_exc()
    finally:
        exit_now(code)


def _ask(line: Connection, request: Any) -> Any:
    line.send(request)
    value, error = line.recv()
    if error is not None:
        raise error
    return value


def _import(modules: Sequence[str], child: int) -> None:
    """Import them. Leaves when the child ends meanwhile, with its exit code, and at Ctrl-C or SIGTERM.

    An exception would not do, since somebody in the middle of an import may catch it; and nothing was begun yet.
    """

    def end(number: int, frame: FrameType | None) -> None:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:  # and was not just halted
            exit_now(_code(status))

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.kill(child, signal.SIGKILL)
        code, line = interrupted(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        print(line, file=sys.stderr)
        exit_now(code)

    handlers = {signal.SIGCHLD: end, signal.SIGINT: stop, signal.SIGTERM: stop}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    gc.freeze()


def _serve(line: Connection, perform: Ask) -> None:
    """Do what is asked until nothing is asked any more."""
    while True:
        try:
            request = line.recv()
        except EOFError:
            return
        answer: tuple[Any, BaseException | None]
        try:
            answer = perform(request), None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, PipezooError):
                traceback.print_exception(error)  # where it was raised is not handed over
            answer = None, error
        line.send(answer)
