"""``pz.run``, ``pz.open_run``, ``pz.open_sweep``: the command line as a call, and what it left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipezoo.api.folders import in_folder
from pipezoo.api.refusals import refusals
from pipezoo.cli.run import task_of, to_yaml
from pipezoo.config.resolve import WITH_MODEL, build, check_components
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.experiment import TASKS, Experiment
from pipezoo.results.run import Run, read_run
from pipezoo.results.run_dir import write_text
from pipezoo.results.sweep_table import collect
from pipezoo.schedule.display import drawn
from pipezoo.tasks.terminal import silent

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


def run(
    *overrides: str,
    config_dir: str | Path | None = None,
    trust: tuple[str, ...] = (),
    folder: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> Run:
    """Do what ``python -m pipezoo`` does with these words, in this process, and return the run.

    Args:
        overrides: words of the command line: ``"model=gpt"``, ``"stages=4"``; ``"simulate"`` is ``"task=simulate"``.
            One run: no options, no sweep.
        config_dir: a folder of your own YAML files, as ``--config-dir``.
        trust: packages whose code a ``_target_`` may name.
        folder: where the run's files go; None: a new one below ``outputs``.
        log: is called with each line that the command line would print; None: nobody hears them.

    Raises:
        ConfigError: the words cannot be run; nothing was started.
        PipezooError: of what kept the run from its end; ``error.folder`` holds what was reached.

    Example:
        >>> import pipezoo as pz
        >>> run = pz.run("simulate", "stages=4", "schedule=zbv", "microbatches=8")
        >>> run.timelines["predicted"].bubble
        0.020408163265306145
    """
    with refusals():
        words = _words(overrides)
        resolved, files = _composed(
            words, config_dir, Allowlist(tuple(trust), () if config_dir is None else (str(config_dir),))
        )
        experiment = build(resolved)
        check_components(experiment)
        with _undisturbed(experiment), in_folder(folder) as made:
            for name, text in files.items():
                (made / name).parent.mkdir(exist_ok=True)
                write_text(made / name, text)
            task_of(experiment.task)(experiment, made, log or silent)
        return read_run(made)


def open_run(folder: str | Path) -> Run:
    """Read a run's folder: ``result``, ``losses``, ``verified``, ``timelines["measured"]``, ``problems``.

    Raises:
        ConfigError: there is no run in the folder.
    """
    return read_run(folder)


@dataclass(frozen=True, repr=False)
class Sweep:
    """The runs of a sweep.

    Args:
        rows: one a run; the keys are those that were swept, and what came out (``results/sweep_table.py``).
    """

    folder: Path
    rows: list[dict[str, Any]]

    def to_dataframe(self) -> pandas.DataFrame:
        """A row a run, a column a key. Raises ConfigError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ConfigError("to_dataframe: needs pandas; install it with: pip install pandas") from None
        return pandas.DataFrame(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Run:
        """The run of a row. Raises ConfigError where the row's job left none."""
        return read_run(self.folder / self.rows[place]["folder"])

    def __iter__(self) -> Iterator[Run]:
        return (self[place] for place in range(len(self)))

    def __repr__(self) -> str:
        done = sum(row["status"] == "ok" for row in self.rows)
        return f"Sweep('{self.folder}', {len(self)} runs, {done} ok)"

    def _repr_html_(self) -> str:
        return drawn("sweep_html", self.rows)


def open_sweep(folder: str | Path) -> Sweep:
    """Read a sweep's folder: ``rows``, ``to_dataframe()``, and each run by its place.

    Raises:
        ConfigError: there is no job in the folder.
    """
    return Sweep(Path(folder), collect(folder))


def _words(overrides: tuple[str, ...]) -> list[str]:
    words = []
    for place, word in enumerate(overrides):
        if not isinstance(word, str) or word.startswith("-"):
            raise ArgumentError("overrides", word, "must be a word like stages=4; options are arguments of pz.run")
        if place == 0 and word in TASKS:
            word = f"task={word}"
        words.append(word.removeprefix("+") if word.startswith("+experiment=") else word)
    return words


def _composed(
    words: list[str], config_dir: str | Path | None, trust: Allowlist
) -> tuple[ResolvedConfig, dict[str, str]]:
    """What the words come to, and the files that say so, as the command line writes them."""
    from pipezoo.config.compose import as_composed, compose, resolved_config

    cfg, choices = compose(words, None if config_dir is None else Path(config_dir))
    resolved = resolved_config(cfg, choices, trust)
    sources = (
        [] if config_dir is None else [{"provider": "command-line", "path": f"file://{Path(config_dir).absolute()}"}]
    )
    files = {
        ".hydra/config.yaml": as_composed(cfg),
        ".hydra/hydra.yaml": {"hydra": {"runtime": {"choices": choices, "config_sources": sources}}},
        ".hydra/overrides.yaml": words,
        "config.yaml": {key: resolved.shown[key] for key in resolved.shown if key != "sweep"},
    }
    return resolved, {name: to_yaml(content) for name, content in files.items()}


def _undisturbed(experiment: Experiment) -> AbstractContextManager[None]:
    if experiment.task not in WITH_MODEL:
        return nullcontext()
    from pipezoo.api.undisturbed import undisturbed

    return undisturbed()
