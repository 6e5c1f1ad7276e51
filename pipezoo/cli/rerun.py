"""``python -m pipezoo.rerun FOLDER [key=value ...]``: run it again from its folder alone, and say what differs.

The new run has a folder of its own. Its losses are compared bit for bit with those of the old one; of a simulation and
a plan, which have none, the step and the bubble are. What is typed behind the folder is changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipezoo.config.overrides import key_of
from pipezoo.errors import PipezooError, VerificationError


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of the run; 3 when it went well but came to other numbers for no reason that can be seen."""
    parser = argparse.ArgumentParser("python -m pipezoo.rerun", description="Run it again and say what differs.")
    parser.add_argument("folder", type=Path, help="what a run left behind")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="what shall be different this time")
    parser.add_argument("--config-dir", type=Path, help="your own YAML files, where the run had some")
    options = parser.parse_intermixed_args(words)
    from pipezoo.cli.outcome import ending

    try:
        return _rerun(options.folder, options.overrides, options.config_dir)
    except (PipezooError, KeyboardInterrupt) as error:
        code, line = ending(error)
        print(line, file=sys.stderr)
        return code


def _rerun(folder: Path, changes: Sequence[str], config_dir: Path | None) -> int:
    from pipezoo.cli.hydra_command import hydra_command
    from pipezoo.cli.words_of_run import words_of
    from pipezoo.results.run_dir import fresh_folder, read_result

    before = read_result(folder)
    typed = [*changes, *([] if config_dir is None else ["--config-dir", str(config_dir)])]
    words, differences = words_of(folder, config_dir)
    for line in differences:
        print(line)
    target = next((word.partition("=")[2] for word in changes if key_of(word) == "hydra.run.dir"), fresh_folder())
    changed = {key_of(word) for word in changes}
    words = [word for word in words if key_of(word) not in changed]
    typed += [] if "hydra.run.dir" in changed else [f"hydra.run.dir={target}"]
    code = hydra_command(typed, words)
    if code:
        return code
    after = read_result(target)
    lines, same = compare(before, after, order_difference(folder, Path(target)))
    print(f"\nagain     {folder} -> {target}")
    for line in lines:
        print(line)
    explained = bool(changes or differences or before.get("versions") != after.get("versions"))
    explained = explained or after.get("task") == "plan"  # searches for as long as it is given, by the clock
    return 0 if same or explained else VerificationError.exit_code


def compare(before: Mapping[str, Any], after: Mapping[str, Any], order: str | None = None) -> tuple[list[str], bool]:
    """What came out differently, in words, and whether the numbers are the same bit for bit.

    Args:
        before, after: ``result.json`` of the two runs.
        order: where their orders differ first, empty where they do not, None where one has none.
    """
    lines = []
    for name in sorted({*before.get("versions", {}), *after.get("versions", {})}):
        then, now = (result.get("versions", {}).get(name) for result in (before, after))
        if then != now:
            lines.append(f"versions  {name} {then} then, {now} now")
    if order is not None:
        lines.append(f"order     {order}" if order else "order     the same")
    numbers, same = _losses(before, after) if "losses" in {*before, *after} else _predictions(before, after)
    return lines + numbers, same and not order


def _losses(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], bool]:
    lines = []
    then, now = before.get("losses", []), after.get("losses", [])
    same = bool(then) and then == now
    if same:
        lines.append(f"losses    the same in all {len(now)} steps, bit for bit")
    elif len(then) != len(now):
        lines.append(f"losses    of {len(then)} steps then, of {len(now)} now")
    else:
        step = next((step for step, (a, b) in enumerate(zip(then, now, strict=True)) if a != b), 0)
        values = f": {then[step]!r} then, {now[step]!r} now" if then else ": none were written"
        lines.append(f"losses    differ from step {step} on{values}")
    if before.get("verified") != after.get("verified"):
        lines.append(f"verified  {before.get('verified')} then, {after.get('verified')} now")
    else:
        lines.append(f"verified  {after.get('verified')}, as then")
    return lines, same


def _predictions(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Of a simulation or a plan, which train nothing."""
    lines, same = [], True
    for title, key, inner in (("step", "step_seconds", "median"), ("bubble", "bubble", "predicted")):
        then, now = (_entry(result, key, inner) for result in (before, after))
        same = same and then is not None and then == now
        lines.append(
            f"{title:<10}{_text(now)}, as then" if then == now else f"{title:<10}{_text(then)} then, {_text(now)} now"
        )
    return lines, same


def _entry(result: Mapping[str, Any], key: str, inner: str) -> Any:
    found = result.get(key)
    return found.get(inner) if isinstance(found, Mapping) else None


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items() if isinstance(entry, (int, float)))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def order_difference(before: Path, after: Path) -> str | None:
    """Where the orders in two folders differ first, in words; empty where they do not, None where one has none."""
    from pipezoo.results.schedule_file import schedule_file
    from pipezoo.schedule.csv_io import read_bytes

    files = schedule_file(before), schedule_file(after)
    if None in files:
        return None
    then, now = (read_bytes(file).decode().splitlines() for file in files if file is not None)
    if then == now:
        return ""
    if len(then) != len(now):
        return f"of {len(then)} ranks then, of {len(now)} now"
    rank = next(rank for rank, rows in enumerate(zip(then, now, strict=True)) if rows[0] != rows[1])
    one, other = (row.split(",") for row in (then[rank], now[rank]))
    at = next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    was, is_now = (row[at] if at < len(row) else "nothing" for row in (one, other))
    return f"differs first on rank {rank} at action {at}: {was} then, {is_now} now"
