"""Documents as data: their fenced blocks, the commands in these, and their sentences.

A comment on the line above a block says how its commands are tested:

    <!-- test: add steps=2 -->      with these words behind each command, since as typed it takes long
    <!-- test: shown -->            not at all: it is an excerpt, or what something else prints
    <!-- test: needs timm -->       where this library is installed
    <!-- test: cluster -->          by tests/test_laptop_to_cluster.py, which has a Slurm and torchrun
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY

FENCE = re.compile(
    r"(?:^ *<!-- test: (?P<test>[^\n]*?) -->\n\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"(?:#|//) ([\w./-]+\.\w+)$")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
EXIT_CODE = re.compile(r"exit code (\d+)")
PROMPT = "$ "
ELSEWHERE = ("shown", "cluster")  # blocks that tests/test_docs.py does not run


def documents() -> list[Path]:
    """Every document of this repository that users read."""
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


@dataclass
class Example:
    """One command, the lines that the document shows below it, words that only its test adds, and its exit code."""

    command: str
    lines: list[str] = field(default_factory=list)
    added: str = ""
    code: int = 0


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text without the fence's indentation, and the comment above it."""

    language: str
    body: str
    test: str

    @property
    def file(self) -> str | None:
        """The file that the block is, which its first line names in a comment."""
        first, _, _ = self.body.partition("\n")
        found = FILE.match(first) if self.language in ("python", "yaml") else None
        return found.group(1) if found else None

    def examples(self) -> list[Example]:
        """The commands of a ``console`` block with what they print, or of a ``bash`` block."""
        needed = self.test.removeprefix("needs ") if self.test.startswith("needs ") else ""
        if needed and importlib.util.find_spec(needed) is None:
            return []
        if self.test in ELSEWHERE or self.language not in ("console", "bash"):
            return []
        return self.commands()

    def commands(self) -> list[Example]:
        """The same, whoever runs them."""
        added = self.test.removeprefix("add ") if self.test.startswith("add ") else ""
        found: list[Example] = []
        for line in self.body.replace("\\\n", " ").splitlines():
            if self.language == "bash":
                if line.strip() and not line.startswith("#"):
                    command, _, comment = line.partition("  #")
                    code = EXIT_CODE.search(comment)
                    found.append(Example(command.strip(), [], added, int(code[1]) if code else 0))
            elif line.startswith(PROMPT):
                found.append(Example(line.removeprefix(PROMPT), [], added))
            elif found:
                found[-1].lines.append(line)
        return found


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    found = []
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        found.append(Block(match["language"], body, match["test"] or ""))
    return found


def indented_blocks(text: str) -> list[str]:
    """The first lines of code blocks that are indented, not fenced: they have neither language nor copy button."""
    plain = COMMENT.sub("", FENCE.sub("", text)).splitlines()
    return [
        line
        for before, line in zip(["", *plain], plain, strict=False)
        if re.match(r" {4}\S", line) and not before.strip() and not re.match(r" +([*-]|\d+\.) ", line)
        if not _inside_a_list(plain, line)
    ]


def _inside_a_list(lines: list[str], line: str) -> bool:
    """Whether the nearest line above that is not indented begins an item of a list."""
    above = [other for other in lines[: lines.index(line)] if other.strip() and not other.startswith(" ")]
    return bool(above) and bool(re.match(r"([*-]|\d+\.) ", above[-1]))


def sentences(text: str) -> Iterator[str]:
    """The sentences of a document's prose: no code, tables, headings, comments or generated texts."""
    text = COMMENT.sub("", FENCE.sub("\n\n", text))
    kept = [line for line in text.splitlines() if not re.match(r"\s*(#|\||!\[|>|\d+\. `)", line)]
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.) )", "\n".join(kept)):
        plain = LINK.sub(r"\1", re.sub(r"`[^`]*`", "code", paragraph))
        plain = re.sub(r"^\s*(?:[*-]|\d+\.) ", "", " ".join(plain.split()))
        for sentence in re.split(r"(?<=[.!?])(?:\*\*|\*|\"|\))?\s+(?=[\"*(A-Z0-9]|code)", plain):
            if re.search(r"\w", sentence):
                yield sentence.strip()


def num_words(sentence: str) -> int:
    """Words between spaces; a sign alone is none."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())
