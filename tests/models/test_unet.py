"""The U-Net: its cuts, its skips, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from pipezoo.models import UNet
from pipezoo.skips import Skip, run_stages
from pipezoo.splitters import annotated


@pytest.mark.parametrize("num_stages", [3, 6])
def test_its_stages_are_the_model_and_the_ways_up_take_skips(num_stages: int) -> None:
    torch.manual_seed(0)
    model, images = UNet(width=4), torch.randn(2, 3, 8, 8)
    stages = annotated.split(model, num_stages, (images,))
    assert torch.equal(run_stages(stages, (images,)), model(images))
    far = [(skip.stage, at) for at, stage in enumerate(stages) for skip in stage.takes.values()]
    # down 0, down 1, down 2, middle, up 2, up 1, up 0, joined to stages as evenly as it goes, the larger ones first
    assert far == {3: [(0, 2), (0, 2)], 6: [(1, 3), (0, 4), (0, 5)]}[num_stages]
    assert all(isinstance(skip, Skip) for stage in stages for skip in stage.takes.values())


def test_it_says_which_images_and_sizes_it_takes() -> None:
    with pytest.raises(ValueError, match=r"depth=3: the images of \(12, 12\) are no multiple of 8"):
        UNet(width=4)(torch.randn(1, 3, 12, 12))
    with pytest.raises(ValueError, match="width=6: must be a multiple of 4"):
        UNet(width=6)
    with pytest.raises(ValueError, match="num_blocks=4"):
        UNet(num_blocks=4)
