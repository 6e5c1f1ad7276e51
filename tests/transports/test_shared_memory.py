"""Messages through shared memory: the values, the layouts, the order, and nobody two steps ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.transport import Lane, lanes_of
from pipezoo.runtime.wiring import Hop
from pipezoo.schedule.lowering import lower
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from pipezoo.transports.choose import transport_for
from pipezoo.transports.distributed import Distributed
from pipezoo.transports.shared_memory import SharedMemory, bytes_needed
from tests.executors.test_native import Chain, Plain, Tower, Turned, cut_by_layers
from tests.support.pipelines import train

SCHEDULE = one_f_one_b(2, 4)


def form(*size: int, dtype: torch.dtype = torch.float32, learns: bool = True) -> torch.Tensor:
    return torch.empty(size, dtype=dtype, device="meta", requires_grad=learns and dtype.is_floating_point)


def memory(*forms: torch.Tensor) -> tuple[SharedMemory, list[Lane]]:
    lanes = lanes_of([Hop(0, 1, forms)], (0, 1))
    return SharedMemory(lanes, lower(SCHEDULE), 4, may_spin=False), lanes


def made(pipeline: Callable[..., Pipeline], layer: Any, schedule: Any) -> Pipeline:
    model = lambda: Chain(layer, max(4, schedule.num_stages))  # noqa: E731
    return pipeline(model, schedule, cut_by_layers)


@pytest.mark.parametrize("schedule", [SCHEDULE, zbv(2, 4), interleaved_1f1b(2, 4)], ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("layer", [Plain, Tower], ids=lambda layer: layer.__name__)
def test_a_pipeline_over_shared_memory_is_exact(pipeline: Callable[..., Pipeline], layer: Any, schedule: Any) -> None:
    if layer is Tower and schedule is SCHEDULE:
        schedule = one_f_one_b(4, 4)
    built = made(pipeline, layer, schedule)
    transport = transport_for(built, "fork", "shared_memory")
    assert train(pipeline_with(built, transport)).verdict["verified"] == "exact"


def test_transposed_tensors_keep_their_layout(pipeline: Callable[..., Pipeline]) -> None:
    built = made(pipeline, Turned, one_f_one_b(4, 4))
    assert train(pipeline_with(built, transport_for(built, "fork", "shared_memory"))).verdict["verified"] == "exact"


def pipeline_with(built: Pipeline, transport: Any) -> Pipeline:
    from dataclasses import replace

    return replace(built, transport=transport, steps=5)


def test_what_is_sent_arrives_in_another_process() -> None:
    shared, (there, back) = memory(form(3, 2), form(4, dtype=torch.int64), form(2, dtype=torch.bool))
    assert (there.is_backward, back.is_backward, len(back.forms)) == (False, True, 1)
    sent = torch.randn(3, 2), torch.arange(4), torch.tensor([True, False])
    child = os.fork()
    if child == 0:
        end = shared.endpoint(1, torch.device("cpu"))
        end.begin_step()
        values = end.receiver(there)(0)()
        same = all(torch.equal(value, expected) for value, expected in zip(values, sent, strict=True))
        end.sender(back)(0, [values[0] * 2])
        os._exit(0 if same else 1)
    end = shared.endpoint(0, torch.device("cpu"))
    end.begin_step()
    answer = end.receiver(back)(0)
    end.sender(there)(0, sent)
    assert torch.equal(answer()[0], sent[0] * 2)
    assert os.waitpid(child, 0)[1] == 0


def test_a_later_message_is_not_taken_for_an_earlier_one() -> None:
    shared, (there, _) = memory(form(1))
    sender, receiver = (shared.endpoint(rank, torch.device("cpu")) for rank in (0, 1))
    for end in (sender, receiver):
        end.begin_step()
    send, receive = sender.sender(there), receiver.receiver(there)
    for microbatch in range(4):
        send(microbatch, [torch.tensor([float(microbatch)])])
    assert [receive(microbatch)()[0].item() for microbatch in (2, 0, 3, 1)] == [2.0, 0.0, 3.0, 1.0]


def test_a_sender_is_at_most_one_step_ahead() -> None:
    shared, (there, _) = memory(form(1))
    sender, receiver = (shared.endpoint(rank, torch.device("cpu")) for rank in (0, 1))
    send = sender.sender(there)
    receiver.begin_step()
    for step in range(2):
        sender.begin_step()
        for microbatch in range(4):
            send(microbatch, [torch.tensor([float(step)])])
    sender.begin_step()
    child = os.fork()
    if child == 0:
        send(0, [torch.tensor([2.0])])
        os._exit(0)
    time.sleep(0.1)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it waits: its neighbour may still read the slot"
    receiver.begin_step()
    assert os.waitpid(child, 0)[1] == 0


def test_another_shape_is_refused_with_both() -> None:
    shared, (there, back) = memory(form(2, 3))
    end = shared.endpoint(0, torch.device("cpu"))
    end.begin_step()
    with pytest.raises(ValueError, match=r"^stage 0: float32 \(2, 4\) came out, where the first"):
        end.sender(there)(0, [torch.zeros(2, 4)])
    with pytest.raises(ValueError, match=r"^the gradient for stage 0: float64 \(2, 3\) came out"):
        end.sender(back)(0, [torch.zeros(2, 3, dtype=torch.float64)])


def test_the_memory_is_known_before_it_is_mapped() -> None:
    _, lanes = memory(form(100), form(3, dtype=torch.int64))
    assert bytes_needed(lanes, 4) == 2 * 4 * (448 + 64) + 2 * 4 * 448


def test_the_choice_is_made_by_what_ranks_can_share(pipeline: Callable[..., Pipeline]) -> None:
    built = made(pipeline, Plain, SCHEDULE)
    assert isinstance(transport_for(built, "fork"), SharedMemory)
    assert isinstance(transport_for(built, "spawn"), Distributed)
    assert isinstance(transport_for(built, "fork", "distributed"), Distributed)
    with pytest.raises(ValueError, match=r"started by spawn share no memory .*; valid: auto, distributed"):
        transport_for(built, "spawn", "shared_memory")
