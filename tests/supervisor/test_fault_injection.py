"""Every fault of a rank: how the run ends, what is said, how soon, and that nothing is left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterator

import pytest

from pipezoo.errors import ConfigError
from pipezoo.results.run_dir import read_metrics
from pipezoo.runtime.fault_injection import Fault, Kill
from tests.supervisor.fault_rows import DEADLINE, FAST, ROWS, seconds_after
from tests.support.command import Ahead, Command, command

LOADED = 6.0  # how much longer things may take where the tests share the machine, and these run three at a time


BY_NAME = {row.what: row for row in ROWS}
BOTH = ("raises in a backward", "is killed by SIGKILL", "is halted (SIGSTOP)", "waits for ever")
RUNS = [  # every row on two ranks or on four, each way to end on both
    *((row.what, 4 if number % 2 else 2) for number, row in enumerate(ROWS)),
    *((what, 2 if ROWS.index(BY_NAME[what]) % 2 else 4) for what in BOTH),
]
MESSAGES = ("executor.transport=distributed", "executor=torch")  # other ways than the default, shared memory
OF_A_PEER = [(what, messages) for messages in MESSAGES for what in (*BOTH, "never joins the others")]


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ahead]:
    """The runs of this file."""

    def start(folder: str, *words: str) -> Callable[[], Command]:
        return lambda: command(tmp_path_factory.mktemp(folder), *words)

    runs: dict[Hashable, Callable[[], Command]] = {
        (what, ranks): start("run", *BY_NAME[what].typed(ranks)) for what, ranks in RUNS
    }
    runs |= {(what, messages): start("run", *BY_NAME[what].typed(2), messages) for what, messages in OF_A_PEER}
    runs |= {name: start(name, *words) for name, words in LOGGED.items()}
    ahead = Ahead(runs)
    yield ahead
    ahead.end()


@pytest.mark.parametrize(("what", "ranks"), RUNS)
def test_a_run_ends_as_it_must_when_a_rank(ahead: Ahead, what: str, ranks: int) -> None:
    row, ended = BY_NAME[what], ahead.ended((what, ranks))
    folder = ended.folder / "run"
    assert ended.code == row.code, ended.err
    assert len(ended.err.splitlines()) == (1 if row.code else 0), ended.err
    assert re.search(row.line.format(last=ranks - 1), ended.err.strip()), ended.err
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == ("failed" if row.code else "ok")
    assert not (folder / ".scratch").exists()
    if not row.code:
        return
    assert (seconds_after(ended) or 0.0) < (DEADLINE + 2.0 if row.hangs else FAST) + LOADED
    assert result["exit_code"] == row.code
    assert result["losses"] == [line["loss"] for line in read_metrics(folder)]
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["error"] in ended.err
    assert [process["name"] for process in failure["processes"]] == [f"rank {rank}" for rank in range(ranks)]
    if "starts with other" not in row.line:
        assert (
            failure["first_failure"] == re.search(r"rank \d", row.line.format(last=ranks - 1) + f"rank {ranks - 1}")[0]
        )  # type: ignore[index]


@pytest.mark.parametrize(("what", "messages"), OF_A_PEER)
def test_it_ends_alike_whatever_carries_messages(ahead: Ahead, what: str, messages: str) -> None:
    row, ended = BY_NAME[what], ahead.ended((what, messages))
    assert (ended.code, len(ended.err.splitlines())) == (row.code, 1), ended.err
    assert re.search(row.line.format(last=1), ended.err.strip()), ended.err
    assert (seconds_after(ended) or 0.0) < (DEADLINE + 2.0 if row.hangs else FAST) + LOADED


LOGGED = {
    "raises": ("stages=4", "fault=raise", "fault.rank=2", "fault.at=2B1"),
    "hangs": ("stages=2", "fault=hang", "fault.at=0B1", "fault.step=1", "launch.step_timeout=0.5"),
    "dies": ("stages=2", "fault=kill", "fault.rank=1", "fault.at=1F2", "fault.step=1"),
}


def test_the_log_has_the_traceback_of_what_failed(ahead: Ahead) -> None:
    log = (ahead.ended("raises").folder / "run" / "ranks.log").read_text()
    assert "----- rank 2, step 0: failed\nTraceback" in log
    assert "RuntimeError: this error was asked for by fault=raise" in log


def test_the_log_has_the_stacks_of_who_does_not_move(ahead: Ahead) -> None:
    log = (ahead.ended("hangs").folder / "run" / "ranks.log").read_text()
    assert "----- rank 0, stage 0, step 1, at 0B1: where it stands" in log
    assert re.search(r'rank 0.*where it stands\n.*File ".*fault_injection.py", line \d+ in inject', log, re.DOTALL)


def test_the_last_actions_of_every_rank_are_kept(ahead: Ahead) -> None:
    failure = json.loads((ahead.ended("dies").folder / "run" / "failure.json").read_text())
    assert failure["processes"][1]["last_actions"][-3:] == ["1B1", "1SEND_B1", "1F2"]
    assert failure["processes"][1]["last_actions"][0] == "1RECV_F0"
    assert failure["processes"][1]["state"] == "was killed by SIGKILL (out of memory?)"


ACTIONS = [["0F0", "0SEND_F0", "0RECV_B0", "0B0"], ["1RECV_F0", "1F0", "1B0", "1SEND_B0"]]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Kill(rank=2), "fault.rank=2: there are 2 ranks; valid: 0..1"),
        (Kill(step=3), "fault.step=3: is no step of this run; valid: 0..2"),
        (
            Kill(rank=1, at="0F0"),
            "fault.at=0F0: rank 1 never comes there; valid: start, join, build, batch, update, save, leave, "
            "evaluate, or one of its actions: 1RECV_F0, 1F0, 1B0, 1SEND_B0",
        ),
    ],
)
def test_a_fault_that_cannot_happen_is_refused(fault: Fault, message: str) -> None:
    from pipezoo.schedule.action import Action

    actions = [[Action.parse(word) for word in words] for words in ACTIONS]
    with pytest.raises(ConfigError) as refused:
        fault.moment(actions, range(3))
    assert str(refused.value) == message
