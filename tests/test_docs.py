"""The commands and programs of all documents are run, and print what the documents show.

```console   $ python -m pipezoo ...   is run; the lines below it are found in what it prints, in this order. Times,
                                       shares and timelines of a run may differ (`resembles`).
                                       A line that begins with "error:" is for exit code 2.
             $ cat FILE                the lines below it are written to FILE
```bash      python -m pipezoo ...     is run and ends with exit code 0, or with the code that a comment behind it says
```python    is run, a document's blocks one after the other in one process; ```yaml is read.
             With "# FILE" as first line it is written to FILE instead.

What takes minutes or another machine is checked as far as it goes without: a benchmark exists, an extra is defined.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipezoo.config.resolve import conf_dir
from tests.conftest import REPOSITORY
from tests.support.command import Command, Script
from tests.support.documents import ELSEWHERE, Example, blocks, documents

FILE, RUN = "cat ", re.compile(r"(?:python -m )?pipezoo(?:\.report)? ")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,.]*(?:e[-+]?\d+)?")
MEASURED = re.compile(r"\d (?:ms|s|MiB|KiB|MB|KB)\b|\d %|loss  |torch \d|tensors equal")
TIMELINE = re.compile(r"^rank \d+ ")
EXTRAS = re.compile(r"^(\w+) = \[", re.MULTILINE)
PICTURES = REPOSITORY / "docs" / "pictures"
TEXTS = {path: path.read_text(encoding="utf-8") for path in documents()}


def names(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def having(*languages: str) -> list[Path]:
    """The documents with blocks of these languages that are not just shown."""
    return [
        path
        for path, text in TEXTS.items()
        if any(block.language in languages and block.test not in ELSEWHERE for block in blocks(text))
    ]


def write_files(text: str, folder: Path) -> None:
    for block in blocks(text):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.body.partition("\n")[2])


def check(example: Example, folder: Path) -> None:
    """Run one command of a document, if it is one of pipezoo's, and hold what it prints against what is shown."""
    if example.command.startswith(FILE):
        (folder / example.command.removeprefix(FILE)).write_text("\n".join(example.lines).strip() + "\n")
    elif found := RUN.match(example.command):
        run(example, shlex.split(example.command[found.end() :] + " " + example.added), folder)
    else:
        check_unrun(example.command)


def run(example: Example, words: list[str], folder: Path) -> None:
    fails = any(line.startswith("error:") for line in example.lines)
    for name in ("out", "err"):
        (folder / name).unlink(missing_ok=True)
    ended = Command(folder, tuple(words)).start().wait(100)
    expected = 2 if fails else example.code
    assert ended.code == expected, f"{example.command}\n{ended.err}{ended.out}"
    printed = (ended.err if fails else ended.out).splitlines()
    for line in example.lines:
        if line.strip() in ("...", ""):
            continue
        at = next((i for i, other in enumerate(printed) if resembles(line, other)), None)
        assert at is not None, f"{line!r} is not in the rest of what {example.command!r} printed:\n" + "\n".join(
            printed
        )
        printed = printed[at + 1 :]


def resembles(shown: str, printed: str) -> bool:
    """Whether a line is as the document shows it, but for what is different in every run.

    "..." stands for anything. Timelines are only told by their rank. Other lines may differ in their numbers, if they
    have a time, a share or a loss (``MEASURED``).
    """
    pattern = ".*".join(map(re.escape, shown.rstrip().split("...")))
    if re.fullmatch(pattern, printed.rstrip()):
        return True
    if (rank := TIMELINE.match(shown)) and "|" in shown:
        return printed.startswith(rank[0])
    masked = ".*".join(map(re.escape, NUMBER.sub("#", shown.rstrip()).split("...")))
    return bool(MEASURED.search(shown)) and bool(re.fullmatch(masked, NUMBER.sub("#", printed.rstrip())))


def check_unrun(command: str) -> None:
    """What a test cannot run is at least there."""
    words = shlex.split(command)
    while words and "=" in words[0]:
        words = words[1:]  # an environment variable
    for part in re.split(r" && ", command):
        known = any(
            found
            for found in (
                _benchmark(part),
                _install(part),
                _tests(part),
                part.startswith(("git ", "cd ", "bash .ci/run", "mkdocs ", "pip install pre-commit", "pre-commit ")),
            )
        )
        assert known or RUN.match(part), f"no way to check {part!r}"


def _benchmark(command: str) -> bool:
    found = re.match(r"python (?:-m )?(benchmarks[./]\w+|tests[.\w]+)(?:\.py)?(.*)", command)
    if not found:
        return False
    module = importlib.util.find_spec(found[1].replace("/", "."))
    assert module is not None, f"{command}: there is no {found[1]}"
    source = Path(str(module.origin)).read_text(encoding="utf-8")
    for word in re.findall(r"--[\w-]+", found[2]):
        assert word in source, f"{command}: {found[1]} has no {word}"
    return True


def _install(command: str) -> bool:
    if not command.startswith("pip install"):
        return False
    defined = set(EXTRAS.findall((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")))
    wanted = re.search(r"\[([\w,]+)\]", command)
    assert set(wanted[1].split(",") if wanted else []) <= defined, command
    return True


def _tests(command: str) -> bool:
    if not re.match(r"(?:python -m )?pytest\b", command):
        return False
    paths = [word for word in command.split() if word.startswith("tests")]
    assert all((REPOSITORY / path).exists() for path in paths), command
    return True


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", having("console", "bash"), ids=names)
def test_every_command_prints_what_the_document_shows(path: Path, tmp_path: Path) -> None:
    write_files(TEXTS[path], tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "conf").symlink_to(conf_dir())
    for block in blocks(TEXTS[path]):
        for example in block.examples():
            check(example, tmp_path)
    drawn = {file.name: file.read_text() for file in (tmp_path / "pictures").iterdir()}
    shown = {name: (PICTURES / name).read_text() for name in drawn}
    assert [name for name in drawn if drawn[name] != shown[name]] == [], "draw them anew: type the commands in docs/"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", having("python"), ids=names)
def test_every_python_block_runs(path: Path, tmp_path: Path) -> None:
    write_files(TEXTS[path], tmp_path)
    parts = [
        block.body
        for block in blocks(TEXTS[path])
        if block.language == "python" and block.test not in ELSEWHERE and block.file is None
    ]
    if not parts:
        pytest.skip("its blocks are files, which its commands use")
    (tmp_path / "document.py").write_text("\n".join(parts), encoding="utf-8")
    ended = Script(tmp_path, ("document.py",)).start().wait(120)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("path", having("yaml"), ids=names)
def test_every_yaml_block_can_be_read(path: Path) -> None:
    for block in blocks(TEXTS[path]):
        if block.language == "yaml" and block.test not in ELSEWHERE:
            assert yaml.safe_load(block.body) is not None


@pytest.mark.parametrize("path", TEXTS, ids=names)
def test_every_command_in_the_text_is_there(path: Path) -> None:
    for command in re.findall(r"`(python -m (?:benchmarks|tests)[^`]*)`", TEXTS[path]):
        check_unrun(command)


@pytest.mark.parametrize("path", TEXTS, ids=names)
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)", TEXTS[path])
    local = [link for link in links if link and "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_a_document_is_read_as_it_looks() -> None:
    text = "Say:\n\n```console\n$ cat a.csv\n0F0\n\n$ python -m pipezoo x\nout\n...\n```\n\n```text\n$ no\n```\n"
    text += "\n<!-- test: add steps=2 -->\n```bash\npython -m pipezoo a \\\n    b  # exit code 2\n```\n"

    assert [example for block in blocks(text) for example in block.examples()] == [
        Example("cat a.csv", ["0F0", ""]),
        Example("python -m pipezoo x", ["out", "..."]),
        Example("python -m pipezoo a      b", [], "steps=2", code=2),
    ]


def test_measured_numbers_may_differ_and_others_may_not() -> None:
    assert resembles("step      425.4 ms, 1203 samples/s", "step      89.1 ms, 5746 samples/s")
    assert resembles("rank 0 FFB |80 %", "rank 0 FFFB |79 %")
    assert not resembles("schedule  zbv: 4 stages on 2 ranks", "schedule  zbv: 5 stages on 2 ranks")
    assert not resembles("verified  exact: 42 tensors equal", "verified  close: 42 tensors equal")
