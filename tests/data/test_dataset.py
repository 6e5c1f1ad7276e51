"""A data set of one's own as a function of the step: the same for everyone who asks, in whatever order."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pipezoo.data.batch import Batch
from pipezoo.data.dataset import batches
from pipezoo.runtime.feed import DataError, opened
from tests.data import sources

ROWS = 8
KINDS = {
    "rows": partial(sources.Rows, noise=True),
    "a list": lambda: [(torch.ones(2) * i, torch.ones(2)) for i in range(48)],
    "a stream": sources.Stream,
    "a generator": sources.generated,
    "a loader": partial(sources.loader, noise=True),
}


def source(make: Any = KINDS["rows"], seed: int = 0, batch_size: int = ROWS, **words: Any) -> Any:
    return batches(batch_size, seed, make, **words)


def same(one: Batch, other: Batch) -> bool:
    flat = [(*batch.args, *batch.kwargs.values(), batch.target) for batch in (one, other)]
    pairs = zip(*flat, strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_seed_and_step_whoever_asks_and_whatever_was_drawn(kind):
    first = source(KINDS[kind])
    batches_of_run = [first(step) for step in range(5)]
    torch.rand(3), random.random(), np.random.rand()  # as a model would
    again = source(KINDS[kind])
    assert same(again(3), batches_of_run[3])  # a resumed run begins there
    assert same(again(4), batches_of_run[4])
    assert same(again(1), batches_of_run[1])  # the reference goes back
    assert not same(batches_of_run[0], batches_of_run[1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_data_set_draws_moves_no_generator_of_the_run(kind):
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    source(KINDS[kind])(1)
    drawn = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    assert drawn == (torch.rand(1).item(), random.random(), np.random.rand())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_number(kind, workers):
    if kind == "a loader":
        pytest.skip("has workers of its own")
    plain = [source(KINDS[kind])(step) for step in range(2, 6)]
    with opened(source(KINDS[kind], workers=workers), range(2, 6)) as feed:
        loaded = [feed(step) for step in range(2, 6)]
    assert all(map(same, loaded, plain))


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    batch = source(partial(sources.Rows, rows=50), batch_size=10)
    epochs = [torch.cat([batch(5 * epoch + at).args[0][:, 0] for at in range(5)]) for epoch in range(2)]
    everything = [index / 50 for index in range(50)]
    assert all(sorted(epoch.tolist()) == pytest.approx(everything) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert not torch.equal(
        epochs[0][:10], source(partial(sources.Rows, rows=50), seed=1, batch_size=10)(0).args[0][:, 0]
    )


def test_rows_keep_their_order_where_nobody_shuffles():
    batch = source(sources.Rows, shuffle=False)
    assert batch(1).args[0][:, 0].tolist() == pytest.approx([index / 48 for index in range(8, 16)])


def test_a_dict_has_its_target_by_name():
    batch = source(sources.generated)(0)
    assert list(batch.kwargs) == ["input"]
    assert batch.target.shape == (ROWS, sources.WIDTH)


def test_a_sequence_of_tokens_is_input_and_target():
    rows = [{"ids": torch.arange(5) + 10 * index} for index in range(16)]
    batch = source(lambda: rows, shift=True, shuffle=False)(0)
    assert batch.args[0][1].tolist() == [10, 11, 12, 13]
    assert batch.target[1].tolist() == [11, 12, 13, 14]


def test_a_stream_that_ends_says_after_how_many_batches():
    with opened(source(partial(sources.Stream, rows=20)), range(4)) as feed:
        feed(0), feed(1)
        with pytest.raises(DataError, match=r"step 2: the data end after 2 batches of 8 rows, .* valid: steps=2, or"):
            feed(2)


def test_a_stream_begins_again_where_that_is_asked_for():
    batch = source(partial(sources.generated, rows=20), repeat=True)
    assert same(batch(0), batch(2))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_that_cannot_be_read_is_named(workers, capfd):
    with opened(source(partial(sources.Rows, bad=20), shuffle=False, workers=workers), range(4)) as feed:
        feed(0), feed(1)
        with pytest.raises(
            DataError, match=r"^data: the batch of step 2, row 20: KeyError: .no such file. \(sources.py"
        ):
            feed(2)
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_of_another_shape_is_named(workers):
    with opened(source(partial(sources.Rows, odd=20), shuffle=False, workers=workers), range(4)) as feed:
        feed(0), feed(1)
        with pytest.raises(DataError, match=r"step 2: its samples do not .* row 4 of the batch is \(9,\) float32"):
            feed(2)


@pytest.mark.parametrize(
    ("make", "words", "why"),
    [
        (partial(sources.Rows, rows=5), {}, "a batch has 8 rows, and the data have 5; valid: 1..5"),
        (partial(sources.loader, batch_size=4), {}, "the DataLoader makes batches of 4 rows; valid: batch_size=4"),
        (
            partial(sources.loader, drop_last=False, rows=50),
            {},
            "an epoch of the DataLoader has 2 of 8 rows; valid: drop",
        ),
        (sources.loader, {"workers": 1}, "a DataLoader has workers of its own"),
        (sources.number, {}, "source: made int; valid: a torch Dataset"),
        (sources.Rows, {"workers": -1}, "workers=-1"),
        (sources.Rows, {"prefetch": 0}, "prefetch=0"),
    ],
)
def test_what_is_no_data_set_is_refused(make, words, why):
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        source(make, **words)


def test_a_stream_without_a_whole_batch_is_refused():
    with pytest.raises(ValueError, match="the data have no whole batch of so many rows"):
        source(partial(sources.Stream, rows=5))(0)


def test_a_worker_that_is_killed_is_said_with_its_step(monkeypatch):
    waits = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(waits, "__defaults__", (0.2,))  # seconds until torch looks whether its workers live; 5
    before = {child.pid for child in multiprocessing.active_children()}
    with opened(source(workers=1, prefetch=1), range(40)) as feed:
        feed(0)
        (worker,) = (child for child in multiprocessing.active_children() if child.pid not in before)
        with suppress(RuntimeError):  # torch's handler raises wherever this process is when it hears of it
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.5)
        # a batch that was under way is a connection that is refused
        with pytest.raises(
            DataError, match=r"^data: the batch of step \d+: (DataLoader worker \(pid|\[Errno|EOFError)"
        ):
            [feed(step) for step in range(1, 40)]


def test_several_targets_are_a_dict():
    rows = [{"x": torch.full((3,), float(i)), "sort": i, "size": float(i)} for i in range(4)]
    batch = batches(4, 0, lambda: rows, shuffle=False, target=("sort", "size"))(0)
    assert [*batch.kwargs] == ["x"]
    assert batch.target["sort"].tolist() == [0, 1, 2, 3]
    assert batch.target["size"].tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"^target=.*a sample has x, sort, size"):
        batches(4, 0, lambda: rows, target=("sort", "sizes"))(0)
