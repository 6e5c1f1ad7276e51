"""``pz.train``: a model of one's own, trained as a pipeline, verified, and given back."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import pipezoo as pz
from pipezoo.api import parts
from pipezoo.api.launches import choose

SGD = partial(torch.optim.SGD, lr=0.1)
SCHEDULE = pz.schedules["1f1b"](2, 4)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def another_thread():
    """As in a notebook: another thread runs, and no fork is safe."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="IOPub")
    thread.start()
    yield
    done.set()
    thread.join()


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))


def batches(count=3):
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(16, 8, generator=generator), torch.randn(16, 8, generator=generator)) for _ in range(count)]


def trained_by_hand(net, data):
    """Microbatch by microbatch on one device, as anybody would write it."""
    optimizer = SGD(net.parameters())
    for inputs, target in data:
        optimizer.zero_grad()
        for x, t in zip(inputs.chunk(4), target.chunk(4), strict=True):
            (functional.mse_loss(net(x), t) / 4).backward()
        optimizer.step()
    return net.state_dict()


def train(net, data, **arguments):
    given = {"schedule": SCHEDULE, "loss": nn.MSELoss(), "optimizer": SGD, "launch": "virtual"}
    return pz.train(net, data, **{**given, **arguments})


@pytest.mark.parametrize("launch", ["processes", "virtual"])
def test_the_trained_model_is_bit_for_bit_that_of_a_loop_by_hand(launch, no_process_left):
    net = model()

    run = train(net, batches(), launch=launch)

    assert (run.verified, len(run.losses), run.launch) == ("exact", 3, launch)
    expected = trained_by_hand(model(), batches())
    assert {name for name, value in run.model.state_dict().items() if not torch.equal(value, expected[name])} == set()
    assert all(
        torch.equal(*pair) for pair in zip(net.state_dict().values(), model().state_dict().values(), strict=True)
    )


def test_a_notebooks_class_is_trained_by_virtual_ranks_in_its_own_process(another_thread):
    class Squared(nn.Module):  # of this function: no other process can import it
        def forward(self, x):
            return x * x

    net = model().append(Squared())

    run = train(net, batches(), launch="auto")

    assert run.verified == "exact"
    assert run.launch.startswith("virtual (in this process: other threads run (IOPub), and ")
    assert "Squared" in run.launch
    assert run.launch in repr(run)
    assert not torch.distributed.is_initialized()


def test_in_a_notebook_processes_are_spawned_where_they_can_be(another_thread):
    assert choose("auto", model()).launch.start_method == "spawn"
    assert choose("auto", model()).why == "spawned: other threads run (IOPub)"
    with pytest.raises(
        pz.ConfigError, match=r"launch=processes: other threads run \(IOPub\), so none can be forked, and"
    ):
        choose("processes", lambda: None)


@pytest.fixture
def in_a_process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_process_of_a_group_of_its_own_keeps_it(in_a_process_group):
    group = "this process has joined a process group of torch.distributed"

    assert choose("auto", model()).why == f"spawned: {group}"
    with pytest.raises(pz.ConfigError, match=f"launch=virtual: {group}; valid: destroy_process_group"):
        train(model(), (X, T), launch="virtual")
    assert torch.distributed.is_initialized()


def test_a_spawned_process_gets_the_parts_as_they_are():
    net = model()
    given = (
        parts.model_part(net),
        parts.split_part([["0"], ["1"]]),
        parts.schedule_part(SCHEDULE),
        parts.loss_part("mse"),
    )
    made, split, schedule, loss = pickle.loads(pickle.dumps(given))

    assert all(torch.equal(*pair) for pair in zip(made().state_dict().values(), net.state_dict().values(), strict=True))
    assert (split.arguments["modules"], schedule(), loss().reduction) == ([["0"], ["1"]], SCHEDULE, "mean")


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "in this process"])
def test_the_callers_process_is_as_it_was(threads, request, capfd):
    if threads:
        request.getfixturevalue("another_thread")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    net = model()
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), dict(os.environ), torch.is_grad_enabled()

    with torch.no_grad():
        train(net, batches())

    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), dict(os.environ), torch.is_grad_enabled())
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert capfd.readouterr() == ("", "")


X, T = batches(1)[0]


class Two(nn.Module):
    """Takes two inputs, by position or by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Bilinear(8, 8, 8), nn.Linear(8, 8)

    def forward(self, x, y):
        return self.second(self.first(x, y))


@pytest.mark.parametrize(
    ("net", "data", "steps"),
    [
        (model, (X, T), 10),
        (model, pz.Batch((X,), {}, T), 10),
        (model, [(X, T), (T, X)], 2),
        (model, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X.repeat(3, 1), T.repeat(3, 1)), 16), 3),
        (model, lambda step: (X + step, T), 10),
        (Two, ((X, T), T), 10),
        (Two, ({"y": X, "x": T}, T), 10),
    ],
    ids=["pair", "Batch", "list", "DataLoader", "function", "two inputs", "inputs by name"],
)
def test_data_comes_in_the_forms_that_people_have(net, data, steps):
    run = train(net(), data)

    assert (run.verified, len(run.losses)) == ("exact", steps)


def test_an_iterable_begins_again_when_it_is_used_up():
    assert train(model(), batches(2), steps=4).losses == train(model(), batches(2) * 2).losses


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", functional.mse_loss),
        ("loss", partial(functional.mse_loss, reduction="sum")),
        ("loss", "mse"),
        ("optimizer", "adamw"),
        ("optimizer", lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)),
        ("split", [["0", "1", "2"], ["3", "4"]]),
        ("split", lambda net, stages, example: [net[:3], net[3:]]),
        ("executor", "torch"),
        ("schedule", "gpipe"),
    ],
)
def test_parts_are_words_or_objects(name, value):
    sizes = {"ranks": 2, "microbatches": 4} if name == "schedule" else {}

    assert train(model(), (X, T), steps=2, **{name: value}, **sizes).verified == "exact"


def test_a_function_may_make_the_model_from_the_seed():
    def make():
        return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))

    first, again, other = (train(make, (X, T), steps=1, seed=seed).losses for seed in (1, 1, 2))

    assert first == again != other


def test_double_precision_and_frozen_parameters_stay_what_they_are():
    net = model().double()
    net[2].requires_grad_(False)

    run = train(net, (X, T))

    assert run.verified == "exact"
    assert run.model[0].weight.dtype == torch.float64
    assert torch.equal(run.model[2].weight, net[2].weight)
    assert not run.model[2].weight.requires_grad


def test_a_run_goes_on_from_another():
    half = train(model(), (X, T), steps=2)

    assert train(model(), (X, T), steps=5, resume=half).losses == train(model(), (X, T), steps=5).losses[2:]


class Counts(nn.Module):
    """Has a state that no checkpoint holds."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * (1 + 0.001 * self.calls)


class Remembers(torch.optim.SGD):
    """Has a state that no checkpoint holds."""

    def step(self, closure=None):
        self.steps_done = getattr(self, "steps_done", 0) + 1
        return super().step(closure)


@pytest.mark.parametrize(
    ("net", "optimizer"),
    [(lambda: model().append(Counts()), SGD), (model, partial(Remembers, lr=0.1))],
    ids=["model", "optimizer"],
)
def test_what_no_checkpoint_can_go_on_with_is_trained_and_given_back(net, optimizer):
    run = train(net(), (X, T), steps=3, optimizer=optimizer, verify=False)

    assert not torch.equal(run.model[0].weight, model()[0].weight)
    assert len(run.losses) == 3


def test_a_run_can_be_opened_again_and_says_what_it_measured():
    run = train(model(), (X, T), folder="mine")

    again = pz.open_run("mine")
    assert (again.verified, again.losses) == (run.verified, run.losses)
    assert again.timelines["measured"].num_spans == 16
    assert repr(again) == "Run('mine', Sequential, 1f1b, 2 stages on 2 ranks, 4 microbatches; verified exact)"
    assert again._repr_html_().count("<svg") == 1
    with pytest.raises(pz.PipezooError, match="already holds a run"):
        train(model(), (X, T), folder="mine")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch": X}, "batch: is of type Tensor; valid: a pair (input, target), an iterable of pairs"),
        ({"batch": (X, T[:8])}, "batch: a tensor of shape (16, 8) has not the 8 rows of the target"),
        (
            {"batch": [(X, T), (X[:8], T[:8])]},
            "batch 1: has 8 rows, and batch 0 has 16; a DataLoader drops such a last",
        ),
        ({"batch": (pair for pair in [(X, T)])}, "steps=None: nothing says how many batches there are"),
        ({"batch": (X[:10], T[:10])}, "batch_size=10: is not divisible by microbatches=4"),
        ({"model": 3}, "model: is of type int; valid: an nn.Module, or a function that makes one"),
        ({"model": lambda: 3}, "model=<lambda>: made a int, no nn.Module"),
        ({"split": "module"}, "split=module: unknown split (did you mean modules?); valid: "),
        ({"split": [["0"], ["9"]]}, "split.modules[1]='9': Sequential has no such module"),
        ({"loss": lambda output, target: output.sum()}, "loss: <lambda> does not say how it reduces a batch"),
        ({"loss": nn.MSELoss(reduction="none")}, "loss=MSELoss: reduction=none: the loss must say how it reduces"),
        ({"optimizer": SGD(model().parameters())}, "optimizer: this SGD holds the parameters of one model"),
        ({"optimizer": lambda params: 3}, "optimizer=<lambda>: made a int, no torch.optim.Optimizer"),
        ({"schedule": "1f2b"}, "schedule=1f2b: unknown schedule (did you mean 1f1b?)"),
        ({"schedule": pz.schedules["1f1b"](9, 4)}, "stages=9: the model has 5 module(s) in a row; valid: 1..5"),
        ({"launch": "virtul"}, "launch=virtul: unknown launch (did you mean virtual?)"),
        ({"dtype": torch.float16}, "dtype=float16: unknown word"),
        ({"steps": 0}, "steps=0: must be an int >= 1"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(changes, text, tmp_path):
    given = {"model": model(), "batch": (X, T), **changes}

    with pytest.raises(pz.ConfigError) as refused:
        train(given.pop("model"), given.pop("batch"), **given)

    assert str(refused.value).startswith(text)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class Breaks(nn.Module):
    """Works in the parent's trial, and fails in the run."""

    def forward(self, x):
        if (x == 7).any():
            raise ZeroDivisionError("as it was told")
        return x


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "in this process"])
def test_what_fails_in_training_is_raised_and_written_down(threads, request):
    if threads:
        request.getfixturevalue("another_thread")
    net, bad = model().append(Breaks()), X.clone()
    net.insert(0, Breaks())
    bad[-1] = 7

    with pytest.raises(pz.PipezooError, match="ZeroDivisionError: as it was told") as raised:
        train(net, [(X, T), (bad, T)], launch="virtual")

    run = pz.open_run(raised.value.folder)
    assert run.status == "failed"
    assert "ZeroDivisionError" in (raised.value.folder / "ranks.log").read_text()
    assert not torch.distributed.is_initialized()


def test_the_recipe_comes_as_python_objects_too():
    run = pz.train(
        model(),
        batches()[0],
        schedule=SCHEDULE,
        loss="mse",
        optimizer=SGD,
        lr_schedule=partial(torch.optim.lr_scheduler.StepLR, step_size=1),
        recipe=pz.Recipe(clip=0.5, ema=0.5),
        precision="bf16",
        steps=2,
        launch="virtual",
    )
    assert run.verified == "exact"
    ours, average = (dict(which.named_parameters()) for which in (run.model, run.average))
    assert ours.keys() == average.keys()
    assert any(not torch.equal(value, average[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": {"clip": 1}}, "recipe: is of type dict; valid: pz.Recipe(clip=1.0)"),
        ({"lr_schedule": 3}, "lr_schedule: is of type int; valid: a function of the optimizer"),
        ({"precision": "bf17"}, "precision=bf17: unknown precision (did you mean bf16?); valid: "),
    ],
)
def test_a_recipe_that_is_none_is_one_line(changes, line):
    with pytest.raises(pz.ConfigError) as error:
        pz.train(model(), batches()[0], schedule=SCHEDULE, loss="mse", optimizer=SGD, **changes)
    assert str(error.value).startswith(line)
