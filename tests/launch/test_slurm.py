"""What ``launch=slurm`` says of itself and refuses, without a Slurm."""

from __future__ import annotations

from typing import Any

import pytest

from pipezoo.cli.world import words_in_a_world
from pipezoo.errors import ArgumentError
from pipezoo.launch import Slurm
from pipezoo.launch.slurm import SUBMITTED, in_its_job


@pytest.mark.parametrize(
    ("nodes", "tasks_per_node", "processes", "tasks"),
    [
        (1, None, 4, 1),  # one task, which forks the ranks
        (1, 4, 4, 4),
        (1, 1, 4, 1),
        (2, None, 4, 2),
        (4, None, 4, 1),
        (2, 3, 6, 3),
    ],
)
def test_the_tasks_of_a_node_are_its_share_of_the_ranks(
    nodes: int, tasks_per_node: int | None, processes: int, tasks: int
) -> None:
    assert Slurm(nodes=nodes, tasks_per_node=tasks_per_node).tasks_for(processes) == tasks


def test_a_job_that_may_begin_again_has_a_task_for_each_rank() -> None:
    assert Slurm(requeue=True).tasks_for(4) == 4
    with pytest.raises(ArgumentError, match="tasks_per_node=1: on 1 node makes 1 processes, and the pipeline has 4"):
        Slurm(requeue=True, tasks_per_node=1).tasks_for(4)


@pytest.mark.parametrize(
    ("nodes", "tasks_per_node", "processes", "line"),
    [
        (2, None, 3, "nodes=2: does not divide the 3 processes; valid: 1, 3"),
        (2, 2, 2, "tasks_per_node=2: on 2 nodes makes 4 processes, and the pipeline has 2"),
        (1, 3, 2, "tasks_per_node=3: on 1 node makes 3 processes, and the pipeline has 2"),
    ],
)
def test_a_job_of_another_size_than_the_pipeline_is_refused(
    nodes: int, tasks_per_node: int | None, processes: int, line: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        Slurm(nodes=nodes, tasks_per_node=tasks_per_node).tasks_for(processes)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"nodes": 0}, "nodes=0: must be an int; valid: >= 1"),
        ({"nodes": 2.5}, "nodes=2.5: must be an int; valid: >= 1"),
        ({"tasks_per_node": True}, "tasks_per_node=True: must be an int; valid: >= 1"),
        ({"time": "1:00:00"}, "time=1:00:00: must be an int in 1.."),
        ({"partition": ""}, "partition='': must be the name of a partition"),
        ({"setup": "module load x"}, "setup=module load x: must be lines of shell"),
        ({"setup": ["a\nb"]}, "setup=['a\\nb']: must be lines of shell"),
        ({"options": ["account=me"]}, "options=account=me: is no option of sbatch"),
        ({"options": ["-A me"]}, "options=-A me: is no option of sbatch"),
        ({"options": ["--time=3"]}, "options=--time=3: is a key of its own; valid: launch.time="),
        ({"options": ["--array=1-3"]}, "options=--array=1-3: is what pipezoo says itself"),
        ({"wait": "no"}, "wait=no: must be true or false"),
    ],
)
def test_what_sbatch_would_misread_is_refused_in_one_line(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Slurm(**arguments)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_other_options_of_sbatch_are_handed_on() -> None:
    slurm = Slurm(options=["--account=me", "--exclusive", "--comment=a b=c"])
    assert slurm.sbatch_options() == {"account": "me", "exclusive": True, "comment": "a b=c"}


@pytest.mark.parametrize(
    ("environ", "inside"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7"}, False),  # of salloc, where the command is typed
        ({"SLURM_JOB_ID": "7", SUBMITTED: "7"}, True),
        ({"SLURM_JOB_ID": "8", SUBMITTED: "7"}, False),  # handed on by a job that submits another
        ({SUBMITTED: "7"}, False),
    ],
)
def test_a_job_knows_that_it_is_the_run(environ: dict[str, str], inside: bool) -> None:
    assert in_its_job(environ) is inside


def test_a_folder_submits_nothing_whatever_is_in_it() -> None:
    chosen = ["launch=slurm", "launch='slurm'", "++launch._target_=pipezoo.launch.Slurm", "launch@launch=slurm"]
    shell = ["launch.setup=['rm x']", "++launch.setup=['rm x']", "launch.options=['--wrap=x']"]
    of_folder = ["stages=2", *chosen, *shell, "launch.threads=1"]
    assert words_in_a_world([], ["launch=virtual"]) == ([], ["launch=virtual"])
    assert words_in_a_world(["steps=3"], of_folder) == (["steps=3"], ["stages=2", "launch.threads=1"])
    typed = ["launch=slurm", "launch.setup=['module load x']"]
    assert words_in_a_world(typed, of_folder) == (typed, ["stages=2", "launch.threads=1"])
