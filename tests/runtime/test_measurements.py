from __future__ import annotations

import numpy as np

from pipezoo.runtime.measurements import measured_seconds
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline


def test_the_measured_cost_of_a_stage_is_the_median_of_its_spans():
    start = np.array([0.0, 10.0, 20.0, 30.0])
    took = np.array([1.0, 9.0, 2.0, 5.0])
    timeline = Timeline(
        rank=np.zeros(4, np.int32),
        stage=np.zeros(4, np.int32),
        op=np.array([Op.F, Op.F, Op.F, Op.B], np.int8),
        microbatch=np.arange(4, dtype=np.int32),
        start=start,
        end=start + took,
        num_ranks=1,
        source="measured",
    )

    seconds = measured_seconds([timeline, timeline], num_stages=2)

    assert seconds[0, [Op.F, Op.B]].tolist() == [2, 5]
    assert np.isnan(seconds[0, Op.W])
    assert np.isnan(seconds[1]).all()
