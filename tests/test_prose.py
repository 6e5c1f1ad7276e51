"""Documents are read at first sight, in whatever language one thinks: short sentences, fenced code, lines that fit."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from tests.conftest import REPOSITORY
from tests.support.documents import FENCE, blocks, documents, indented_blocks, num_words, sentences

MOST_WORDS_ON_AVERAGE = 20
MOST_WORDS = 45
LONGEST_LINE = 120
README_LINES = 150


def names(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", documents(), ids=names)
def test_sentences_have_less_than_twenty_words_on_average_and_none_is_endless(path: Path) -> None:
    found = list(sentences(path.read_text(encoding="utf-8")))
    words = [num_words(sentence) for sentence in found]
    assert [sentence for sentence, count in zip(found, words, strict=True) if count > MOST_WORDS] == []
    assert mean(words) < MOST_WORDS_ON_AVERAGE


@pytest.mark.parametrize("path", documents(), ids=names)
def test_code_is_fenced_and_says_its_language(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert indented_blocks(text) == []
    assert [block.body for block in blocks(text) if not block.language] == []


@pytest.mark.parametrize("path", documents(), ids=names)
def test_lines_of_prose_fit(path: Path) -> None:
    plain = FENCE.sub("", path.read_text(encoding="utf-8")).splitlines()
    long = [line for line in plain if len(line) > LONGEST_LINE and not line.lstrip().startswith(("|", "!["))]
    assert [line for line in long if "](" not in line and "`" not in line[:4]] == []


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_prose_is_told_from_the_rest() -> None:
    text = (
        "# A title of many words that is no sentence\n\nOne two. Three `python -m x` four:\n\n"
        "* five [six](https://example.org/a.b) seven.\n* Eight!\n\n"
        "```bash\nnot this. Nor this.\n```\n\n| a | table. |\n"
    )
    assert list(sentences(text)) == ["One two.", "Three code four:", "five six seven.", "Eight!"]
    assert [num_words(sentence) for sentence in sentences(text)] == [2, 3, 3, 1]


def test_indented_code_is_told_from_what_belongs_to_a_list() -> None:
    text = "Say:\n\n    python -m pipezoo\n\n* an item\n\n    goes on\n\n```bash\n    inside\n```\n"
    assert indented_blocks(text) == ["    python -m pipezoo"]
