"""Documents whose commands are run: what they print is what the document shows.

$ cat FILE                    the lines below it are written to FILE
$ python -m pipezoo ...       is run, and the lines below it are found in what it prints, in this order;
                              "..." stands for anything, a line that begins with "error:" for exit code 2
```python or ```yaml          whose first line is "# FILE" is written to FILE
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

import pytest

from tests.conftest import REPOSITORY

DOCUMENTS = ["add-a-schedule.md", "exports.md"]
FENCED = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE, RUN = "cat ", "python -m pipezoo "


class Example(NamedTuple):
    """One ``$ command`` and the lines below it."""

    command: str
    lines: list[str]


def examples(text):
    """Every command of the indented blocks, in order."""
    found = []
    for line in text.splitlines():
        if line.startswith("    $ "):
            found.append(Example(line.removeprefix("    $ "), []))
        elif line.startswith("    ") and found:
            found[-1].lines.append(line[4:])
        elif line.strip() and found and found[-1].command:
            found.append(Example("", []))  # prose: what is indented after it belongs to no command
    return [example for example in found if example.command]


def check(example, ended):
    """The command printed what the document shows."""
    fails = any(line.startswith("error:") for line in example.lines)
    printed = ended.err if fails else ended.out
    assert ended.code == (2 if fails else 0), ended.err
    at = 0
    for line in example.lines:
        if line.strip() in ("...", ""):
            continue
        wanted = re.compile("^" + ".*".join(map(re.escape, line.rstrip().split("..."))) + r"[ ]*$", re.MULTILINE)
        found = wanted.search(printed, at)
        assert found, f"{line!r} is not in the rest of what {example.command!r} printed:\n{printed[at:]}"
        at = found.end()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_prints_what_the_document_shows(name, cli, tmp_path):
    text = (REPOSITORY / "docs" / name).read_text()
    for file, content in FENCED.findall(text):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    ran = 0
    for example in examples(text):
        if example.command.startswith(FILE):
            (tmp_path / example.command.removeprefix(FILE)).write_text("\n".join(example.lines).strip() + "\n")
        else:
            assert example.command.startswith(RUN), f"no way to run {example.command!r}"
            check(example, cli(*shlex.split(example.command.removeprefix(RUN))))
            ran += 1
    assert ran


def test_a_document_is_read_as_it_looks():
    text = (
        "Say:\n\n    $ cat a.csv\n    0F0\n\n    $ python -m pipezoo x\n    out\n    ...\n\nNot shown:\n\n    plain\n"
    )

    assert examples(text) == [Example("cat a.csv", ["0F0"]), Example("python -m pipezoo x", ["out", "..."])]
