"""What becomes of standard output and error never costs a run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SIMULATE = "simulate ranks=2 microbatches=2 hydra.run.dir=here"
TRAIN = "model=multi_mlp model.d_hid=8 stages=1 steps=1 verify=false hydra.run.dir=here"


@pytest.mark.parametrize(
    "redirected",
    [
        ">&-",
        "2>&-",
        "<&-",
        ">&- 2>&- <&-",
        ">/dev/full",
        "2>/dev/full",
        "| true",
        "2>&1 | true",
    ],
)
def test_a_stream_that_takes_nothing_costs_no_run(environment, tmp_path, redirected):
    ended = shell(f"{SIMULATE} {redirected}", environment, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "here" / "result.json").read_text())["status"] == "ok"


@pytest.mark.parametrize("redirected", [">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_nor_one_with_ranks(environment, tmp_path, redirected, no_process_left):
    assert shell(f"{TRAIN} {redirected}", environment, tmp_path).returncode == 0
    result = json.loads((tmp_path / "here" / "result.json").read_text())
    assert (result["status"], len(result["losses"])) == ("ok", 1)


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "2>&1 | true"])
@pytest.mark.parametrize("words", ["stages=0", "--nope"])  # a line of ours, and a page of argparse
def test_nor_the_exit_code_of_an_error(environment, tmp_path, redirected, words):
    assert shell(f"{words} {redirected}", environment, tmp_path).returncode == 2


def shell(words: str, environment: dict[str, str], folder) -> subprocess.CompletedProcess[str]:
    command = f"set -o pipefail; {sys.executable} -m pipezoo {words}"
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
