"""The texts of documents that the program itself knows: choices, keys, schedules, the text of --help.

    python -m benchmarks.documents            write them anew, into README.md and docs/ (cogapp: the extra dev)
    python -m benchmarks.documents --check    exit code 1 if one is not as the program has it

Documents call these functions in cog's comments (``[[[cog ... ]]]``).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipezoo.config.resolve import conf_dir

REPOSITORY = Path(__file__).resolve().parent.parent
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?: (?P<value>.*?))?(?:  # (?P<meaning>.*))?$")
OF_HYDRA = ("defaults", "hydra", "_target_")
SOURCE = re.compile(r"arXiv:[\d.]+")


def choices() -> dict[str, list[str]]:
    """The groups of ``conf/``, each with its choices."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def choices_table(*groups: str) -> str:
    """One row per group of ``conf/``: those that are named, or all."""
    found = choices()
    rows = [f"| `{group}` | {' '.join(f'`{name}`' for name in found[group])} |" for group in groups or found]
    return "\n".join(["| group | choices |", "|---|---|", *rows])


def help_text() -> str:
    """What ``python -m pipezoo --help`` prints, in a fence."""
    command = [sys.executable, "-m", "pipezoo", "--help"]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return f"```text\n{printed.strip()}\n```"


def keys_tables() -> str:
    """A table of keys for every choice that has keys, with the first comment of its file above."""
    parts = []
    for group, names in choices().items():
        tables = {name: list(keys(conf_dir() / group / f"{name}.yaml")) for name in names}
        if group != "experiment" and any(tables.values()):
            parts.append(f"### {group}")
            if (every := conf_dir() / f"every_{group}.yaml").is_file():
                parts.append(_table(group, "", list(keys(every)), every))
            parts.extend(_table(group, name, rows) for name, rows in tables.items() if rows)
    return "\n\n".join(parts)


def keys(file: Path) -> Iterator[tuple[str, str, str]]:
    """The keys of a YAML file with default and comment; nested ones with dots, those that Hydra reads left out."""
    outer: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        found = KEY.match(line)
        if found is None:
            continue
        depth = len(found["indent"])
        outer = [(at, name) for at, name in outer if at < depth]
        path = ".".join([name for _, name in outer] + [found["key"]])
        outer.append((depth, found["key"]))
        if path.partition(".")[0] not in OF_HYDRA and found["meaning"]:
            yield path, found["value"] or "", found["meaning"]


def _table(group: str, name: str, rows: list[tuple[str, str, str]], file: Path | None = None) -> str:
    first, _, _ = (file or conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")
    about = f": {first.removeprefix('# ')}" if first.startswith("# ") and "@package" not in first else ""
    title = f"`{group}={name}`{about}" if name else about.removeprefix(": ")
    lines = [title, "", "| key | default | meaning |", "|---|---|---|"]
    for key, value, meaning in rows:
        shown = f"`{value}`" if value else ""
        lines.append(f"| `{group}.{key}` | {shown} | {_cell(meaning)} |")
    return "\n".join(lines)


def schedules_table() -> str:
    """Every schedule that is a function: what it is, its paper, bubble and memory, as its file says at its top."""
    lines = ["| `schedule=` | what it is | bubble | memory | source |", "|---|---|---|---|---|"]
    for name in choices()["schedule"]:
        target = re.search(r"_target_: ([\w.]+)\.\w+", (conf_dir() / "schedule" / f"{name}.yaml").read_text("utf-8"))
        module = importlib.import_module(target.group(1)) if target else None
        if module is None or not SOURCE.search(module.__doc__ or ""):  # an order from a file
            continue
        text = module.__doc__ or ""
        about, _, _ = text.partition("\n\n")
        bubble, memory = (_said(text, word) for word in ("bubble", "memory"))
        source = " ".join(dict.fromkeys(SOURCE.findall(text)))
        lines.append(f"| `{name}` | {_cell(about)} | {_cell(bubble)} | {_cell(memory)} | {source} |")
    return "\n".join(lines)


def _said(text: str, word: str) -> str:
    """The line of a docstring that begins with ``word``, and those that go on below it, deeper."""
    found = re.search(rf"^    {word} +(.*(?:\n {{8,}}.*)*)", text, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def main(words: list[str]) -> int:
    """Run cog over all documents; its exit code."""
    from cogapp import Cog

    pages = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
    with_text = [str(page) for page in pages if "[[[cog" in page.read_text(encoding="utf-8")]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code: int = Cog().main(
            ["cog", "-U", "-r", "--verbosity=1", *(["--check"] if "--check" in words else []), *with_text]
        )
    if code:
        print(said.getvalue(), end="")
        print("a document is not as the program has it: python -m benchmarks.documents")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
