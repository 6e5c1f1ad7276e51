"""Which part of what a model returns is its output, beside inputs by keyword and of other kinds than tensors."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.errors import ConfigError
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.runtime.model_output import picked, with_output
from pipezoo.runtime.stages import inputs_of
from tests.support.experiments import ending, experiment

WIDTH, ROWS = 8, 4


@dataclass
class Output:
    logits: torch.Tensor
    cache: object = None


class Model(nn.Module):
    """Options before the second input, an input by keyword alone, a data class as output, a loss inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x, mode="plain", mask=None, *, shift, labels=None):
        for layer in self.layers:
            x = layer(x if mode == "plain" else x * 2)
        x = x + shift if mask is None else x * mask + shift
        if labels is not None:
            return {"loss": nn.functional.mse_loss(x, labels), "logits": x}
        return Output(x, object())


def tensors(count):
    torch.manual_seed(0)
    return [torch.randn(ROWS, WIDTH) for _ in range(count)]


def called(batch, output="logits"):
    """The output for a batch of a model, of itself and as it is called with the tensors alone."""
    model = Model()
    expected = picked(model(*batch.args, **batch.kwargs), output)
    with_output(model, output)
    tensors = inputs_of(model, batch, torch.float32)
    return model, expected, model(*tensors)


def test_keyword_inputs_stay_keywords_and_defaults_fill_the_gaps():
    x, mask, shift = tensors(3)
    _, expected, found = called(Batch((x,), {"mask": mask, "shift": shift}, x))
    assert torch.equal(found, expected)


def test_what_is_no_tensor_is_handed_over_as_it_is_and_may_not_change():
    x, shift = tensors(2)
    model, expected, found = called(Batch((x, "double"), {"shift": shift}, x))
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="an input is 'plain', and was 'double' in the first batch"):
        inputs_of(model, Batch((x, "plain"), {"shift": shift}, x), torch.float32)


def test_a_copy_of_a_model_calls_the_copy():
    x, shift = tensors(2)
    model, _, _ = called(Batch((x,), {"shift": shift}, x))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.layers[0].weight.zero_()
    assert not torch.equal(twin(x, shift), model(x, shift))


Pair = namedtuple("Pair", "first second")
T = torch.ones(1)


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ({"logits": T}, "logits"), (Output(T), "logits"), (Pair(0, T), "second"), (Pair(0, T), 1), ((0, T), -1),
        ((0, {"deep": [T]}), "1.deep.0"), ({"a.b": T}.copy() | {"a": {"b": T}}, "a.b"), (T, None),
    ],
)  # fmt: skip
def test_a_part_is_found_by_field_key_or_index(result, output):
    assert picked(result, output) is T


@pytest.mark.parametrize(
    ("result", "output", "line"),
    [
        (
            Output(T),
            "logit",
            "logit: Output: unknown part of what the model returns (did you mean logits?); valid: logits",
        ),
        ((T, T), 5, "5: tuple: unknown part of what the model returns; valid: 0, 1"),
        (T, "logits", "logits: Tensor: has no parts"),
    ],
)
def test_a_part_that_is_not_there_is_refused(result, output, line):
    with pytest.raises(ConfigError) as error:
        picked(result, output)
    assert str(error.value) == f"model.output={line}"


def trained(folder, output, names=("shift",), loss="torch.nn.MSELoss", **more):
    def batches(batch_size, seed):
        torch.manual_seed(seed)
        made = [torch.randn(batch_size, WIDTH) for _ in range(4)]
        named = dict(zip(("shift", "mask", "labels"), made[1:], strict=True))
        return lambda step: Batch((made[0],), {name: named[name] for name in names}, made[3])

    asked = experiment(Model, split="pipezoo.splitters.replay.split", loss=loss, num_stages=3, output=output)
    parts = {"data": PythonComponent("data", "mine", made=batches), **more}
    return ending(replace_all(asked, parts), folder)


def replace_all(asked, parts):
    from dataclasses import replace

    return replace(asked, **parts)


def test_a_model_with_keywords_gaps_and_a_structured_output_trains_exactly(tmp_path):
    assert trained(tmp_path, "logits", ("shift", "mask")) == (0, "exact")


def test_a_loss_inside_of_forward_trains_exactly(tmp_path):
    loss = "pipezoo.losses.of_model.OfModel"
    assert trained(tmp_path, "loss", ("shift", "labels"), loss) == (0, "exact")


def test_a_model_that_computes_its_loss_is_told_which_loss_that_is(tmp_path):
    code, line = trained(tmp_path, "loss", ("shift", "labels"), "pipezoo.losses.TokenCrossEntropy")
    assert (code, line.partition(": ")[2]) == (
        2,
        "the model returns one number, as one does that computes its loss; valid: loss=model",
    )


def test_an_output_that_is_no_tensor_is_refused_with_what_would_do(tmp_path):
    code, line = trained(tmp_path, None)
    assert (code, line) == (
        2,
        "model.output=null: Model returns a Output, and the loss takes a tensor; valid: model.output=logits",
    )


def test_an_input_that_forward_needs_and_the_data_lack_is_an_error_of_the_data(tmp_path):
    code, line = trained(tmp_path, "logits", ())
    assert code == 2
    assert line == "data=mine: the data does not fit Model.forward: missing a required argument: 'shift'"
