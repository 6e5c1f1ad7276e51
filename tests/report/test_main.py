from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipezoo.report.__main__ import main
from pipezoo.report.compare import differences
from pipezoo.results.run import read_run
from tests.support.run_folders import run_folder


def test_one_folder_gets_its_page_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "a")
    assert main([str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path}/a/report.html\n"
    assert "verified exact" in (tmp_path / "a" / "report.html").read_text()


def test_a_sweeps_folder_gets_the_page_of_the_sweep(tmp_path: Path) -> None:
    for i in range(2):
        run_folder(tmp_path / str(i), 2 + i)
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Sweep of 2 jobs over stages" in page
    assert "<b>all 2 jobs ok</b> 2 verified" in page


@pytest.mark.parametrize("suffix", [".svg", ".html"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_output_says_by_its_name_what_is_written(tmp_path: Path, suffix: str, count: int) -> None:
    folders = [str(run_folder(tmp_path / str(i))) for i in range(count)]
    assert main([*folders, "--output", str(tmp_path / f"out{suffix}")]) == 0
    assert (tmp_path / f"out{suffix}").read_text().startswith({".svg": "<svg", ".html": "<!doctype html>"}[suffix])
    assert not (tmp_path / "0" / "report.html").exists()


def test_two_runs_are_drawn_on_one_axis_and_what_differs_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run_folder(tmp_path / "a"), run_folder(tmp_path / "b", schedule="zb", losses=[4.0, 2.5, 1.5])
    assert main([str(a), str(b), "--width", "100"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for text in (
        "A multi_mlp, 1f1b, 4 stages on 4 ranks, 8 microbatches",
        "A predicted, 33 ms, bubble 27.3 % of the makespan",
        "config A B schedule 1f1b zb",
        "loss, first differs at step 2 1.75 1.5",
        "predicted: order, first differs on rank 0 at action 4 0B0 0F4 0B1 0I0 0W0 0F4",
    ):
        assert text in told


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "a"))
    found = differences([run, run])
    assert (found["config"], found["result"]) == ([], [])
    assert all(left == right for _, (left, right) in found["timeline"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["empty"], "error: folder=empty: holds no run (there is no result.json)"),
        (["missing"], "error: folder=missing: holds no run (there is no result.json)"),
        (["a", "empty"], "error: folder=empty: holds no run (there is no result.json)"),
        (["a", "-o", "x.gif"], "error: output=x.gif: must end in one of .html, .svg, .png"),
        (["no\x1b[31mred"], "error: folder=no\\x1b[31mred: holds no run (there is no result.json)"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_two(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    line: str,
) -> None:
    run_folder(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_a_place_that_cannot_be_written_is_exit_code_six(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_folder(tmp_path / "a")), "-o", str(tmp_path / "no" / "x.html")]) == 6
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_the_report_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    a, b = run_folder(tmp_path / "a"), run_folder(tmp_path / "b", 2)
    calls = [[str(a)], [str(tmp_path)], [str(a), str(b), "-o", str(tmp_path / "c.html")]]
    code = f"""
import sys
from pipezoo.report.__main__ import main
for arguments in {calls!r}:
    assert main(arguments) == 0
print(sorted({{"torch", "hydra", "omegaconf"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n")
