"""What crosses a cut, what a trace keeps of the model, and what it says when it cannot."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import pipe_split

from pipezoo.models import ModelWithKwargs, ModelWithParamAlias, MultiMLP, MultiMLPWithDw
from pipezoo.skips import run_stages
from pipezoo.splitters import annotated, marked


class Linears(nn.Module):
    """Four linear layers a, b, c, d of eight features, for forwards of the test's own."""

    def __init__(self):
        super().__init__()
        for name in "abcd":
            setattr(self, name, nn.Linear(8, 8))


class Skipping(Linears):
    def forward(self, x, y, order):
        skip = self.a(x)
        pipe_split()
        hidden = self.b(skip).relu()
        pipe_split()
        hidden = self.c(hidden) + skip * 2 + skip
        pipe_split()
        return (self.d(hidden) + y + skip)[order]


class Normed(Linears):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("scale", torch.full((8,), 3.0), persistent=False)

    def forward(self, x):
        x = self.a(x)
        pipe_split()
        return self.norm(self.b(x) * self.scale)


class Reusing(Linears):
    def forward(self, x):
        x = self.a(self.a(x))
        pipe_split()
        x = self.b(self.a(x))
        pipe_split()
        return self.b(self.a(self.b(x)))


class Branching(Linears):
    def forward(self, x):
        pipe_split()
        return self.a(x) if x.sum() > 0 else self.b(x)


class MarkedTooOften(Linears):
    def forward(self, x):
        pipe_split()
        x = self.a(x)
        pipe_split()
        pipe_split()
        x = self.b(x)
        pipe_split()
        return x


class ConstantFirst(Linears):
    def forward(self, x):
        x = self.a(x)
        pipe_split()
        offset = torch.ones(8)
        pipe_split()
        return self.b(x) + offset


class TwoResults(Linears):
    def forward(self, x):
        x = self.a(x)
        pipe_split()
        return self.b(x), x.argmax(1)


def rows(count=4, width=8):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(5))


def run(stages, *values):
    return run_stages(stages, values)


def gradients(model, loss):
    loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def assert_same_training(model, stages, *inputs):
    whole = copy.deepcopy(model)
    expected, actual = whole(*inputs), run(stages, *inputs)
    assert torch.equal(actual, expected)
    ours, theirs = gradients(model, actual.square().mean()), gradients(whole, expected.square().mean())
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("num_stages", [2, 3, 4])
def test_skips_late_inputs_and_integers_cross_every_cut_they_must(num_stages):
    model, order = Skipping(), torch.tensor([3, 1, 0, 2])
    stages = marked.split(model, num_stages, (rows(), rows(), order))
    assert_same_training(model, stages, rows(), rows() + 1, order)


def test_a_stage_takes_what_crosses_its_front_and_no_more():
    model = Skipping()
    stages = marked.split(model, 4, (rows(), rows(), torch.tensor([3, 1, 0, 2])))
    assert [len(stage.inputs) for stage in stages] == [3, 1, 1, 1]
    far = [{name: skip.stage for name, skip in stage.takes.items()} for stage in stages]
    assert [sorted(takes.values()) for takes in far] == [[], [], [0], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"args=0 tensor\(s\): the stage takes 1"):
        stages[1]()


def test_an_input_of_the_model_that_only_passes_leaves_as_it_is():
    stages = marked.split(Skipping(), 4, (rows(), rows(), torch.tensor([3, 1, 0, 2])))
    y = rows()
    passed = stages[0](rows(), y, torch.tensor([3, 1, 0, 2])).skips["y"]
    assert passed is y  # so that the wiring knows it: every rank has it from its own batch


def test_buffers_are_the_models_own_and_only_training_moves_them():
    model = Normed()
    stages = marked.split(model, 2, (rows(),))
    assert model.norm.num_batches_tracked == 0
    whole = copy.deepcopy(model)
    assert torch.equal(run(stages, rows()), whole(rows()))
    assert model.norm.num_batches_tracked == 1
    assert torch.equal(model.norm.running_mean, whole.norm.running_mean)


def test_a_module_used_on_both_sides_of_a_cut_stays_one():
    model = Reusing()
    stages = marked.split(model, 3, (rows(),))
    own = {id(parameter) for parameter in (*model.a.parameters(), *model.b.parameters())}
    assert {id(parameter) for stage in stages for parameter in stage.parameters()} == own
    assert_same_training(model, stages, rows())


def test_both_names_of_an_alias_are_one_parameter_in_both_stages():
    model = ModelWithParamAlias(8)
    first, second = marked.split(model, 2, (rows(), rows()))
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in first.parameters()} == own
    assert {id(parameter) for parameter in second.parameters()} == own


def test_marks_with_nothing_between_them_make_no_stage():
    model = MarkedTooOften()
    stages = marked.split(model, None, (rows(),))
    assert len(stages) == 2
    assert_same_training(model, stages, rows())


def test_a_piece_that_needs_nothing_keeps_its_place():
    model = ConstantFirst()
    stages = marked.split(model, 3, (rows(),))
    assert [sum(p.numel() for p in stage.parameters()) for stage in stages] == [72, 0, 72]
    assert_same_training(model, stages, rows())


def test_several_results_leave_as_a_tuple():
    model = TwoResults()
    result = run(marked.split(model, 2, (rows(),)), rows())
    assert torch.equal(result[0], model(rows())[0])
    assert torch.equal(result[1], model(rows())[1])


def test_the_example_may_carry_a_default_input_into_the_trace():
    model = ModelWithKwargs(512, 3)
    stages = marked.split(model, 3, (rows(256, 512),))
    assert torch.equal(run(stages, rows(256, 512)), model(rows(256, 512)))


def test_a_model_that_has_run_before_is_split_and_left_as_it_was():
    model = MultiMLPWithDw(8, 3)
    model(rows()).sum().backward()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    annotated.split(model, 3, (rows(),))
    annotated.split(model, 2, (rows(),))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"layers.0": "end", "layers.2": "end"}, 3),
        ({"layers.0": "beginning", "layers.1": "beginning"}, 2),
        ({"layers.0.net2": "beginning", "layers.3.net1": "END"}, 3),
    ],
)
def test_a_split_spec_may_be_given_in_words(spec, expected):
    model = MultiMLP(8, 4)
    stages = annotated.split(model, None, (rows(),), split_spec=spec)
    assert len(stages) == expected
    assert_same_training(model, stages, rows())


def refusal(split, *arguments, **knobs):
    with pytest.raises(ValueError, match="=") as error:
        split(*arguments, **knobs)
    return str(error.value)


def test_more_stages_than_marks_names_how_many_there_are():
    text = refusal(marked.split, ModelWithKwargs(8, 3), 4, (rows(), rows()))
    assert text == "num_stages=4: the pipe_split() calls of ModelWithKwargs make 3 stage(s); valid: 1..3"


def test_a_model_without_marks_names_the_other_splitters():
    text = refusal(marked.split, MultiMLP(8, 4), 2, (rows(),))
    assert text == "model=MultiMLP: its forward calls no pipe_split(); split=modules or split=annotated fits"


def test_a_model_that_cannot_be_traced_says_so_in_one_line_and_nothing_else(capfd):
    text = refusal(marked.split, Branching(), 2, (rows(),))
    assert text.startswith("model=Branching: cannot be traced: GuardOnDataDependentSymNode: ")
    assert text.endswith("; split=replay cuts without a trace")
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("model", "cause"),
    [(ModelWithKwargs(8, 3), "RuntimeError: The size of tensor a"), (ModelWithParamAlias(8), "TypeError: ")],
)
def test_an_example_that_the_model_itself_refuses_is_to_blame(model, cause):
    text = refusal(marked.split, model, 2, (rows(),))
    assert text.startswith(f"example=[4, 8]: the forward of {type(model).__name__} fails on it: {cause}")


def test_an_unknown_module_in_a_split_spec_is_named_with_its_neighbours():
    text = refusal(annotated.split, MultiMLP(8, 2), None, (rows(),), split_spec={"layers.9": "end"})
    assert text == "split_spec=layers.9: MultiMLP has no such module; valid: layers.1, layers.0, layers, ..."


def test_an_unknown_place_in_a_split_spec_is_named():
    text = refusal(annotated.split, MultiMLP(8, 2), None, (rows(),), split_spec={"layers.1": "middle"})
    assert text == "split_spec=layers.1: 'middle': unknown place; valid: beginning, end"


def test_a_model_without_split_spec_is_told_the_ways_out():
    text = refusal(annotated.split, ModelWithKwargs(8, 3), None, (rows(), rows()))
    assert text.startswith("split_spec=None: ModelWithKwargs has none of its own; give one")


def test_a_trace_runs_as_code_and_not_by_an_interpreter(monkeypatch):
    model, x = MultiMLP(8, 4), torch.randn(2, 8)
    stages = annotated.split(model, 2, (x,))

    def interpreted(self, *args, **kwargs):
        raise AssertionError("a stage interprets its graph")

    monkeypatch.setattr(torch.fx.Interpreter, "run", interpreted)
    assert torch.equal(stages[1](stages[0](x)), model(x))
    assert torch.equal(copy.deepcopy(stages[1])(stages[0](x)), model(x))
