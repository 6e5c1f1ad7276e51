"""An optimizer is made and steps without torch's compiler, and whoever wants the compiler has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, torch
from pipezoo.no_compiler import no_compiler

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


ASKED = """
import sys, torch
from pipezoo.no_compiler import no_compiler

def other():
    return 2

with no_compiler():
    @torch.compiler.disable()
    def brackets():
        return 1
    def kept():
        return torch.compiler.disable(other) is not other
    print(brackets(), kept(), torch.compiler.disable(torch.nn.Identity()).training, "sympy" in sys.modules)
"""


def test_the_compiler_itself_keeps_out_of_what_others_ask_it_to() -> None:
    ended = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert ended.stdout == "1 True True True\n"


WITHOUT = """
import runpy, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise RuntimeError(f"imported {{name}}")

sys.meta_path.insert(0, Refused())
sys.argv = ["pipezoo", *{words!r}]
runpy.run_module("pipezoo", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("word", ["split=modules", "split=replay", "schedule=zb_h1", "verify=false"])
def test_a_run_needs_neither_torchs_compiler_nor_its_pipelining(tmp_path: Path, word: str) -> None:
    """They take as long to import as all the rest, in the parent and in what it forks."""
    names = ("torch._dynamo", "torch.distributed.pipelining", "torch.distributed.tensor", "sympy")
    words = ["model=multi_mlp", "stages=2", "steps=2", "optimizer=adamw", "split=modules", word]
    words = [one for one in words if one == word or one.partition("=")[0] != word.partition("=")[0]]
    code = WITHOUT.format(names=names, words=words)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
