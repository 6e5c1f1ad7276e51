"""How the ranks of a pipeline run, one launch a file; ``launch.py`` says what a launch is."""

from pipezoo.launch.processes import Processes
from pipezoo.launch.slurm import Slurm
from pipezoo.launch.virtual import Virtual
from pipezoo.launch.world import World

__all__ = ["Processes", "Slurm", "Virtual", "World"]
