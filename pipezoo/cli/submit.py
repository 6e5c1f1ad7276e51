"""``launch=slurm``, outside of a job: this command becomes a job, by submitit, and has the exit code of its run.

FOLDER/slurm/7_submission.sh         what sbatch was given
FOLDER/slurm/7_0_log.out, .err       what rank 0 printed
FOLDER/...                           the run, as always: its job is what owns the folder
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

from pipezoo.cli.held_nodes import NO_SWEEP
from pipezoo.cli.outcome import record, result_of
from pipezoo.cli.partitions import check_partition, partitions
from pipezoo.cli.request import Request
from pipezoo.cli.slurm_job import Printed, State, state_of, wait_for
from pipezoo.cli.submitted import become
from pipezoo.config.overrides import key_of, literal, parted
from pipezoo.errors import ArgumentError, ConfigError, OutputError, PipezooError, RankError
from pipezoo.experiment.derive import known_ranks
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch.slurm import Slurm
from pipezoo.results.run_dir import RESULT
from pipezoo.results.sanitize import printable
from pipezoo.results.units import count
from pipezoo.supervisor.processes import signals_held
from pipezoo.supervisor.start_deadline import end_deadline

FOLDER = "slurm"  # in the run's own
NEVER = {"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit"}  # reasons to wait for ever
NEVER |= {"BadConstraints", "InvalidAccount", "InvalidQOS"}
FAREWELL = 10.0  # seconds in which a cancelled job may write down how it ended


def submit(request: Request, experiment: Experiment, print_line: Callable[[str], None]) -> int:
    """Submit the command that asks for this run, and wait for it where the launch says so; the exit code.

    Raises:
        ConfigError: it cannot be submitted as it is.
        OutputError: the folder holds a run.
        RankError: the job ended, and nothing of the run is there.
        KeyboardInterrupt: the job is cancelled.
    """
    if request.sweep is not None:
        raise ConfigError(NO_SWEEP)
    launch = cast(Slurm, experiment.launch)
    _check(request, experiment, launch)
    folder = request.folder.absolute()
    tasks, processes = _tasks(experiment, launch)
    parameters = _parameters(experiment, launch, tasks, processes)
    job: Any = None
    try:
        with signals_held():  # a job of which nobody knows would stay
            job = _submitted(_words(request.words, folder), folder, parameters)
        number = str(job.job_id)
        print_line(f"slurm     job {number}: {count(launch.nodes, 'node')}, {count(tasks, 'task')} on each; {folder}")
        end_deadline()
        if not launch.wait:
            print_line(f"slurm     it runs without this command; scancel {number} ends it")
            return 0
        printed = Printed({job.paths.stdout: print_line, job.paths.stderr: _to_stderr})
        state = wait_for(number, printed, lambda: _settled(folder), _teller(number, print_line))
    except (KeyboardInterrupt, PipezooError):
        if job is not None:
            _cancel(job, folder, print_line)
        raise
    return _exit_code(number, state, printed, folder)


def _check(request: Request, experiment: Experiment, launch: Slurm) -> None:
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError("launch=slurm: needs submitit, which is not installed; valid: pip install 'pipezoo[slurm]'")
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ConfigError(
            "launch=slurm: there is no sbatch here; valid: a machine of a Slurm cluster, launch=processes"
        )
    if launch.requeue and experiment.checkpoint.every is None:
        raise ConfigError("launch.requeue=true: nothing would be there to go on from; valid: checkpoint.every=100")
    try:
        check_partition(launch, partitions())
    except ArgumentError as error:
        raise _of_launch(error) from None
    result = result_of(request.folder)
    if (request.folder / RESULT).exists() and result.get("exit_code") != ConfigError.exit_code:
        raise OutputError(f"hydra.run.dir={request.folder}: already holds a run; choose a folder without {RESULT}")


def _tasks(experiment: Experiment, launch: Slurm) -> tuple[int, int]:
    """The tasks of each node, and the processes of the pipeline. Raises ConfigError."""
    ranks = known_ranks(experiment)
    if ranks is None:  # until the model is split
        if launch.nodes > 1 and launch.tasks_per_node is None:
            raise ConfigError(
                "launch.tasks_per_node=null: nobody knows the ranks before the job; valid: ranks=2, stages=2"
            )
        tasks = launch.tasks_per_node or 1
        return tasks, tasks * launch.nodes
    processes = ranks * experiment.mesh.size
    try:
        return launch.tasks_for(processes), processes
    except ArgumentError as error:
        raise _of_launch(error) from None


def _of_launch(error: ArgumentError) -> ConfigError:
    return ConfigError(error.at(f"launch.{error.argument}"), error)


def _parameters(experiment: Experiment, launch: Slurm, tasks: int, processes: int) -> dict[str, Any]:
    """What submitit is told, in sbatch's words."""
    here = max(1, processes // launch.nodes)  # ranks of a node
    cpus = launch.cpus_per_task or max(1, here // tasks) * (launch.threads or 1)
    gpus = launch.gpus_per_node or (here if experiment.device == "cuda" else None)
    return {
        "job_name": "pipezoo",
        "nodes": launch.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cpus,
        "gpus_per_node": gpus,
        "partition": launch.partition,
        "time": launch.time,
        "setup": list(launch.setup) or None,
        "additional_parameters": {**launch.sbatch_options(), "requeue" if launch.requeue else "no-requeue": True},
        "srun_args": [f"--cpus-per-task={cpus}", "--kill-on-bad-exit=0"],
    }


def _words(words: tuple[str, ...], folder: Path) -> list[str]:
    """The command line of the job: this one, into this folder."""
    options, overrides = parted(words)
    kept = [word for word in overrides if key_of(word) != "hydra.run.dir"]
    return [*options, *kept, f"hydra.run.dir={literal(str(folder))}"]


def _submitted(words: list[str], folder: Path, parameters: dict[str, Any]) -> Any:
    import submitit

    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, and raises it too
            executor = submitit.SlurmExecutor(folder / FOLDER)
            executor.update_parameters(**given)
            return executor.submit(become, words)
    except OSError as error:
        raise OutputError(f"{folder / FOLDER}: cannot be written: {error.strerror or error}") from error
    except Exception as error:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        raise _refusal(str(error)) from error


def _refusal(text: str) -> ConfigError:
    """What sbatch says, in one line."""
    said = re.findall(r"sbatch: error: (?:Batch job submission failed: )?(.+)", text) or text.strip().splitlines()[-1:]
    why = printable(said[-1].strip().rstrip(".")) if said else "without a word"
    return ConfigError(f"launch=slurm: sbatch says: {why}")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _teller(job: str, print_line: Callable[[str], None]) -> Callable[[State], None]:
    """Says once what a job waits for, and where it runs; raises ConfigError where it would wait for ever."""
    told = set[str]()

    def tell(state: State) -> None:
        line = ""
        if state.word == "PENDING" and state.reason in NEVER:
            raise ConfigError(
                f"launch=slurm: job {job} would wait for ever: {state.reason}; valid: what a partition takes"
            )
        if state.word == "PENDING" and state.reason not in ("None", ""):
            line = f"slurm     job {job} waits: {state.reason}"
        elif state.word == "RUNNING":
            line = f"slurm     job {job} runs on {state.nodes}"
        if line and line not in told:
            told.add(line)
            print_line(line)

    return tell


def _settled(folder: Path) -> bool:
    return bool(result_of(folder).get("status", "running") != "running")


def _cancel(job: Any, folder: Path, print_line: Callable[[str], None]) -> None:
    """A command that is interrupted takes its job with it."""
    job.cancel()
    print_line(f"slurm     job {job.job_id} is cancelled")
    until = monotonic() + FAREWELL
    while monotonic() < until and not state_of(str(job.job_id)).over:
        sleep(0.2)
    if (folder / RESULT).exists() and not _settled(folder):
        record(folder, 130, "interrupted")


def _exit_code(job: str, state: State, printed: Printed, folder: Path) -> int:
    """That of the run, which its result says; else that of a run that was refused, which its job left with."""
    result = result_of(folder)
    if result.get("status", "running") != "running":
        return int(result.get("exit_code") or 0)
    if not result and state.code == ConfigError.exit_code:
        return state.code
    last = f": {printable(printed.of_slurm[-1])}" if printed.of_slurm else ""
    word = "is gone" if state.word == "GONE" else f"ended as {state.word} with exit code {state.code}"
    error = RankError(f"job {job} {word} before its run did{last}")
    if result:
        record(folder, error.exit_code, str(error))
    raise error
