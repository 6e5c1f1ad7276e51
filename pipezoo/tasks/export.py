"""What a run hands out to other trainers, in ``export/`` of its folder: ``export=torchtitan`` and its siblings.

What is known before the run begins is an error only if nothing that was asked for can be had; else it is a line, and
what can be had is written. What turns out later, the winner of a plan, is never an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import Experiment
from pipezoo.exports.spec import Export, ExportSpec
from pipezoo.results.run_dir import write_text
from pipezoo.tasks.terminal import PrintLine

if TYPE_CHECKING:
    from pipezoo.runtime.pipeline import Pipeline

FOLDER = "export"


def make_exports(experiment: Experiment, spec: ExportSpec, is_known_early: bool = True) -> dict[str, Export]:
    """The exports that were asked for, by name; one that cannot be had has no files, and a note that says why.

    Args:
        is_known_early: whether the run has not begun; then it is an error if there would be no files at all.

    Raises:
        ConfigError: see above, or an argument is out of range.
    """
    made: dict[str, Export] = {}
    refused: ConfigError | None = None
    for component in experiment.exports:
        try:
            made[component.choice] = component(spec=spec)
        except ConfigError as error:
            if error.argument is not None:  # one of its arguments is wrong
                raise
            made[component.choice] = Export({}, (f"none: {error.why}",))
            refused = error
    if refused is not None and is_known_early and not any(export.files or export.weights for export in made.values()):
        raise refused
    return made


def write_exports(exports: Mapping[str, Export], folder: Path, print_line: PrintLine) -> dict[str, Any]:
    """Write the files, say where they are and what to know of them, and return the same for ``result.json``."""
    told: dict[str, Any] = {}
    for name, export in exports.items():
        place = folder / FOLDER / name
        if export.files:
            place.mkdir(parents=True, exist_ok=True)
            print_line(f"export    {place}: {', '.join(export.files)}")
        for file, text in export.files.items():
            write_text(place / file, text)
        for note in export.notes:
            print_line(f"export    {name}: {note}")
        files = [*export.files, *([export.weights] if export.weights else [])]
        told[name] = {"files": [f"{FOLDER}/{name}/{file}" for file in files], "notes": list(export.notes)}
    return told


def write_trained(exports: Mapping[str, Export], pipeline: Pipeline, folder: Path, print_line: PrintLine) -> None:
    """Write the trained weights where an export asks for them. Raises OutputError."""
    from pipezoo.runtime.weights import trained_state, write_weights  # torch: a simulation has exports, too

    for name, export in exports.items():
        if not (file := export.weights):
            continue
        state = trained_state(pipeline, export.averages)
        place = folder / FOLDER / name
        place.mkdir(parents=True, exist_ok=True)
        write_weights(place / file, state)
        print_line(f"export    {place / file}: {len(state)} entries")
