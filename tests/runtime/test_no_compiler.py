"""An optimizer is made and steps without torch's compiler, and whoever wants the compiler has it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, torch
from pipezoo.runtime.no_compiler import no_compiler

NAME = "torch._dynamo"
weight = torch.nn.Parameter(torch.ones(2))
with no_compiler():
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.5)
    weight.grad = torch.ones(2)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
print(weight.tolist(), NAME in sys.modules, "_dynamo" in vars(torch), "sympy" in sys.modules)
print(vars(torch.optim.Optimizer.add_param_group.__wrapped__))
with no_compiler():
    import torch._dynamo
    print(torch._dynamo.config.verbose, torch._dynamo is sys.modules[NAME], torch._dynamo.__file__.endswith(".py"))
    optimizer.step()
before = sys.modules[NAME]
with no_compiler():
    torch.optim.SGD([weight], lr=0.5).step()
print(sys.modules[NAME] is before is torch._dynamo)
"""


def test_the_compiler_is_imported_by_who_asks_for_more_of_it_alone() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    made, remembered, asked, kept = ended.stdout.splitlines()
    assert made == "[0.5, 0.5] False False False"
    assert remembered == "{}"
    assert asked == "False True True"
    assert kept == "True"
