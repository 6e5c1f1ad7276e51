from __future__ import annotations

import pytest

from pipezoo.schedule.action import Op
from pipezoo.schedule.builders.delayed_weight import delay_weight_grads


def spelled(steps):
    return " ".join(Op(op).name + str(microbatch) for op, microbatch in zip(steps.op, steps.microbatch, strict=True))


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        ((5, 2, 1), "F0 F1 I0 F2 I1 W0 F3 I2 W1 F4 I3 W2 I4 W3 W4"),
        ((3, 1, 0), "F0 I0 W0 F1 I1 W1 F2 I2 W2"),
        ((3, 2, 2), "F0 F1 I0 F2 I1 I2 W0 W1 W2"),
        ((2, 9, 9), "F0 F1 I0 I1 W0 W1"),
        ((3, 1, 1, True), "F0 F1 I0 F2 I1 W0 I2 W1 W2"),
    ],
)
def test_weight_halves_wait_until_as_many_as_asked_are_late(arguments, order):
    assert spelled(delay_weight_grads(*arguments)) == order
