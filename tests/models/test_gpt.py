from __future__ import annotations

import pytest
import torch

from pipezoo.data import text
from pipezoo.losses import TokenCrossEntropy
from pipezoo.models import GPT

SMALL = {"width": 16, "depth": 2, "heads": 2, "context": 12}


def build(**arguments):
    torch.manual_seed(0)
    return GPT(**{**SMALL, **arguments})


def ids(rows=3, context=12, seed=1):
    return torch.randint(256, (rows, context), generator=torch.Generator().manual_seed(seed))


def test_logits_have_a_class_per_byte_at_every_position():
    assert build()(ids()).shape == (3, 12, 256)


def test_a_position_sees_itself_and_the_past_only():
    model, before, after = build(), ids(), ids()
    after[:, 7] = (after[:, 7] + 1) % 256
    changed = (model(before) != model(after)).flatten(2).any(2).any(0)
    assert changed.tolist() == [False] * 7 + [True] * 5


def test_the_forward_is_the_chain_of_its_children():
    model, x = build(), ids()
    value = x
    for module in [model.embedding, *model.blocks, model.norm, model.head]:
        value = module(value)
    assert torch.equal(value, model(x))


def test_fresh_logits_say_nothing_yet():
    loss = TokenCrossEntropy()(build()(ids()), ids(seed=2))
    assert loss.item() == pytest.approx(torch.tensor(256.0).log().item(), abs=0.1)


def test_tied_embeddings_are_one_parameter():
    tied, untied = build(tied=True), build()
    assert tied.head.weight is tied.embedding.token.weight
    assert untied.head.weight is not untied.embedding.token.weight
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (untied, tied)]
    assert count[0] - count[1] == 256 * 16


def test_ten_steps_on_the_default_text_lower_the_loss_by_a_tenth():
    torch.manual_seed(0)
    model, loss_of = GPT(), TokenCrossEntropy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch, losses = text.batches(batch_size=32, seed=0, context=64), []
    for step in range(10):
        (x,), _, target = batch(step)
        loss = loss_of(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", ["vocab_size", "width", "depth", "heads", "context"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_sizes_that_are_no_positive_ints_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be an int >= 1"):
        build(**{name: value})


def test_a_width_that_the_heads_do_not_share_evenly_is_refused():
    with pytest.raises(ValueError, match="width=16: must be a multiple of heads=3"):
        build(heads=3)


def test_more_positions_than_the_context_are_refused():
    with pytest.raises(ValueError, match="context=12: the input has 13 positions"):
        build()(ids(context=13))
