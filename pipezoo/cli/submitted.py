"""What submitit runs in each task of a job: the task becomes the run that was submitted.

The process stays the one that Slurm started, so that its exit code is the run's, and Slurm's signals are the run's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from pipezoo.launch.slurm import SUBMITTED


def become(words: Sequence[str]) -> None:
    """Turn this process into ``python -m pipezoo words...``; nothing returns from it."""
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)  # submitit has its own
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # which comes before the time is up, and would kill
    os.environ[SUBMITTED] = os.environ["SLURM_JOB_ID"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pipezoo", *words])
