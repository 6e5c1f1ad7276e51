"""What a person in a hurry types is answered with what was meant."""

from __future__ import annotations

import pytest

from pipezoo.cli.completion import completions
from pipezoo.config.misread import check_words, groups
from pipezoo.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("--model=gpt", "--model=gpt: keys have no dashes; write model=gpt"),
        ("--stages 4", "--stages: keys have no dashes; write stages=4"),
        ("--optimizer.lr=1", "--optimizer.lr=1: keys have no dashes; write optimizer.lr=1"),
        ("-m stages=2, 4", "stages=2,: ends with a comma; no blank after a comma: stages=2,4"),
        ("-m stages=2,4, seed=1", "stages=2,4,: ends with a comma; no blank after a comma: stages=2,4"),
        ("simulate ranks=4 zbv", "zbv: has no key; did you mean schedule=zbv?"),
        ("gpt stages=2", "gpt: has no key; did you mean model=gpt?"),
        ("ranks = 2", "ranks = 2: has blanks around =; leave them out"),
        ("ranks =2", "ranks =2: has blanks around =; leave them out"),
        ("ranks= 2", "ranks= 2: has a blank after =; write ranks=2"),
        (
            "data.path=~/book.txt",
            "data.path=~/book.txt: the shell leaves ~ as it is there; write data.path=$HOME/book.txt",
        ),
        ("ranks=4 simulate", "simulate: a task comes first; write it there, or task=simulate"),
        (
            "hydra.job.chdir=true",
            "hydra.job.chdir=true: paths are relative to where the command is typed; valid: false",
        ),
        (
            "hydra.verbose=true",
            "hydra.verbose=true: pipezoo writes no log of Hydra's; debug=true shows tracebacks, "
            "--info what is composed from where",
        ),
        (
            "--experimental-rerun out/r/.hydra/config.pickle",
            "--experimental-rerun: is Hydra's; here python -m pipezoo rerun out/r runs it again",
        ),
    ],
)
def test_a_word_that_is_none_is_answered(typed, line):
    with pytest.raises(ConfigError) as error:
        check_words(typed.split())
    assert str(error.value) == line


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "stages=2 -m seed=1,2",
        "--cfg job -p model",
        "--config-dir conf model=mine",
        "--info defaults",
        "--help",
        "~fault",
        "hydra.run.dir=out~1",
        "+experiment=schedules",
        "export=[torch,megatron]",
        "trust=[a,]",
        "hydra.job.chdir=false",
        "hydra.verbose=false",
        "resume=",
        "--nope",
    ],
)
def test_what_is_an_override_or_an_option_passes(typed):
    check_words(typed.split())


def test_no_option_of_one_group_hides_behind_another():
    """`did you mean` is a question: a name that several groups have is asked with all of them."""
    with pytest.raises(ConfigError, match="zbv"):
        check_words(["zbv"])
    assert {"model", "schedule", "launch"} <= {*groups()}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pipezoo sim", ["simulate"]),
        ("pipezoo re", ["report", "rerun"]),
        ("pipezoo stages=2 task=", ["task=train", "task=verify", "task=simulate", "task=plan"]),
        ("pipezoo dtype=f", ["dtype=float32", "dtype=float64"]),
        ("pipezoo device=", ["device=cpu", "device=cuda"]),
        ("pipezoo verify=t", ["verify=true"]),
        ("pipezoo schedule=z", None),
        ("pipezoo optimizer.l", None),
        ("pipezoo ", None),
    ],
)
def test_words_with_a_fixed_list_are_completed(line, found):
    assert completions(["-sc", "query=bash"], {"COMP_LINE": line}) == found
    assert completions(["stages=2"], {"COMP_LINE": line}) is None
