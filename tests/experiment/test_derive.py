"""The numbers that follow from what was asked."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import pytest

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.derive import derive, resolve
from pipezoo.experiment.experiment import Experiment
from tests.support import zoo
from tests.support.configs import compose


def asked(words: str) -> Experiment:
    return load(*compose(["task=simulate", *words.split()]), Allowlist())


@pytest.mark.parametrize(
    ("words", "found", "stages", "ranks", "per_rank", "microbatches", "batch_size"),
    [
        ("", 2, 2, 2, 1, 8, 32),
        ("model=multi_mlp", 6, 6, 6, 1, 8, 32),
        ("stages=4", 4, 4, 4, 1, 8, 32),
        ("ranks=4", 4, 4, 4, 1, 8, 32),
        ("ranks=2 schedule=zbv", 4, 4, 2, 2, 8, 32),
        ("stages=8 schedule=interleaved_1f1b", 8, 8, 4, 2, 8, 32),
        ("stages=6 ranks=2 schedule=interleaved_1f1b", 6, 6, 2, 3, 8, 32),
        ("model.splits=4 schedule=zbv", 4, 4, 2, 2, 8, 32),
        ("microbatches=4", 2, 2, 2, 1, 4, 16),
        ("batch_size=64", 2, 2, 2, 1, 8, 64),
        ("microbatches=5 batch_size=30", 2, 2, 2, 1, 5, 30),
    ],
)
def test_what_was_not_typed_is_derived(words, found, stages, ranks, per_rank, microbatches, batch_size):
    experiment = asked(words)
    sizes = resolve(experiment, derive(experiment), found)
    assert (sizes.num_stages, sizes.num_ranks, sizes.stages_per_rank) == (stages, ranks, per_rank)
    assert (sizes.num_microbatches, sizes.batch_size) == (microbatches, batch_size)
    made = (sizes.schedule.num_stages, sizes.schedule.num_ranks, sizes.schedule.num_microbatches)
    assert made == (stages, ranks, microbatches)


@pytest.mark.parametrize(
    ("words", "found", "lines"),
    [
        ("", 2, ["stages=2", "ranks=2 (1 stage per rank)", "microbatches=8", "batch_size=32 (4 rows per microbatch)"]),
        ("stages=2 ranks=2 microbatches=4 batch_size=8", 2, []),
        ("ranks=2 schedule=zbv microbatches=4", 4, ["stages=4 (ranks=2)", "batch_size=16 (4 rows per microbatch)"]),
        ("stages=4 schedule=zbv microbatches=4 batch_size=4", 4, ["ranks=2 (2 stages per rank)"]),
    ],
)
def test_what_was_derived_is_said_and_nothing_else(words, found, lines):
    experiment = asked(words)
    sizes = resolve(experiment, derive(experiment), found)
    assert [*sizes.lines, *sizes.batch_lines] == lines


def test_a_file_says_all_numbers_itself(tmp_path):
    (tmp_path / "order.csv").write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    experiment = asked(f"schedule=csv schedule.file={tmp_path}/order.csv")
    known = derive(experiment)
    assert (known.num_stages, known.num_microbatches, known.batch_size, known.rows) == (2, 2, 8, 4)
    assert known.lines == ("microbatches=2 (the schedule's)",)
    assert known.batch_lines == ("batch_size=8 (4 rows per microbatch)",)
    assert resolve(experiment, known, 2).num_ranks == 2


@pytest.mark.parametrize(
    ("words", "found", "message"),
    [
        ("stages=4", 3, "stages=4: asks for 4 stages, but split=marked made 3 of model=example_code; valid: 3"),
        ("ranks=2 schedule=zbv", 3, "ranks=2: asks for 4 stages, but split=marked made 3 of model=example_code; valid: 3"),
        ("model.splits=6", 5, "model.splits=6: asks for as many stages, but split=marked made 5 of model=example_code; valid: 5"),
        ("model.splits=5 schedule=zbv", 5, "model.splits=5: zbv puts 2 stages on every rank; valid: 4, 6, 8 ..."),
        ("model=multi_mlp schedule=zbv", 3, "stages=3: zbv puts 2 stages on every rank; valid: 2, 4, 6 ..."),
    ],
)  # fmt: skip
def test_a_split_that_does_not_fit_is_refused(words, found, message):
    experiment = asked(words)
    with pytest.raises(ConfigError) as error:
        resolve(experiment, derive(experiment), found)
    assert str(error.value) == message


def test_many_ranks_cost_nothing():
    experiment = asked("ranks=64 schedule=interleaved_1f1b microbatches=128 model=multi_mlp")
    assert resolve(experiment, derive(experiment), 128).schedule.num_actions == 64 * 2 * 2 * 128


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("ranks=2", "microbatches=8"),
        ("ranks=16", "microbatches=16 (one for each of 16 ranks)"),
        ("ranks=16 schedule=dualpipev", "microbatches=16 (one for each of 16 ranks)"),
        ("ranks=3 schedule=grouped_interleaved_1f1b", "microbatches=9 (a multiple of ranks=3)"),
        ("stages=24 schedule=zbv", "microbatches=12 (one for each of 12 ranks)"),
        ("model=multi_mlp stages=64", "microbatches=64 (one for each of 64 ranks)"),
    ],
)
def test_microbatches_that_nobody_typed_suit_ranks_and_schedule(words, line):
    experiment = asked(words)
    known = derive(experiment)
    assert resolve(experiment, known, known.num_stages).lines[-1] == line


@pytest.mark.parametrize("schedule", sorted(set(zoo.GENERATED)))
@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 16, 17])
def test_ranks_alone_are_enough_for_every_schedule(schedule, ranks):
    experiment = asked(f"ranks={ranks} schedule={schedule}")
    known = derive(experiment)
    assert resolve(experiment, known, known.num_stages).num_ranks == ranks
