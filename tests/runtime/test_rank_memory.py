"""A rank holds its own share of a model, and no weight of another's stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipezoo.runtime.rank_memory import let_go_of_others, private_bytes
from pipezoo.schedules.one_f_one_b import one_f_one_b
from tests.support.pipelines import WIDTH, build_pipeline, train

MB = 2**20
WIDE = 2048


class Uneven(nn.Sequential):
    """Three stages: the middle one takes 16 MiB, the others next to nothing."""

    def __init__(self) -> None:
        wide = nn.Sequential(nn.Linear(WIDTH, WIDE), nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 16))
        super().__init__(nn.Linear(WIDTH, WIDTH), wide, nn.Linear(16, WIDTH))


class Tied(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)))
        self[2].weight = self[0].weight


@pytest.mark.skipif(private_bytes() is None, reason="the system does not tell what a process holds")
def test_what_a_rank_alone_holds_is_about_its_share(tmp_path):
    pipeline = build_pipeline(tmp_path, Uneven, one_f_one_b(3, 4))
    share = sum(p.numel() * 4 for p in pipeline.stages.modules[1].parameters())
    pipeline.optimizer([nn.Parameter(torch.zeros(1))])  # torch imports much with the first one
    assert share > 16 * MB
    trained = train(pipeline)
    assert trained.verdict["verified"] == "exact"
    small, large, other = (words["private"] for words in trained.told)
    # parameters, momentum, gradients, and what was freed and is kept; the others hold none of it
    assert 1.9 * share < large - small < 8 * share
    assert abs(small - other) < 0.5 * share
    assert small < 2.5 * share


def test_weights_of_other_stages_are_let_go_and_keep_their_shapes(tmp_path):
    pipeline = build_pipeline(tmp_path, Tied, one_f_one_b(3, 4))
    first, second, third = ([*module.parameters()] for module in pipeline.stages.modules)
    before = first[0].detach().clone()
    let_go_of_others(pipeline, 2)
    assert third[0] is first[0]  # tied: rank 2 holds it, too
    assert torch.equal(first[0], before)
    assert second[0].isnan().all()
    assert second[0].shape == (WIDTH, WIDTH)
    assert second[0].untyped_storage().nbytes() == 4
    assert not third[1].isnan().any()


def test_one_process_lets_nothing_go(tmp_path):
    pipeline = build_pipeline(tmp_path, Tied, one_f_one_b(3, 4), stage_to_rank=(0, 0, 0))
    let_go_of_others(pipeline, 0)
    assert not any(p.isnan().any() for p in pipeline.stages.model.parameters())
