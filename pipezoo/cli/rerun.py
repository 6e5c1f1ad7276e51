"""``python -m pipezoo.rerun FOLDER [key=value ...]``: run it again from its folder alone, and say what differs.

    FOLDER/config.yaml           what ran                    \\
    FOLDER/.hydra/overrides.yaml what was typed               |-> typed again, and what today's conf/ says otherwise
    conf/                        what the same words mean now /    is set back to what it was

The new run has a folder of its own. Its losses are compared bit for bit with those of the old one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipezoo.config.overrides import OF_THIS_COMMAND_LINE, key_of, leaves, literal
from pipezoo.errors import ConfigError, PipezooError, VerificationError
from pipezoo.validators import regular_file


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of the run; 3 when it went well but came to other numbers for no reason that can be seen."""
    parser = argparse.ArgumentParser("python -m pipezoo.rerun", description="Run it again and say what differs.")
    parser.add_argument("folder", type=Path, help="what a run left behind")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="what shall be different this time")
    parser.add_argument("--config-dir", type=Path, help="your own YAML files, where the run had some")
    options = parser.parse_intermixed_args(words)
    from pipezoo.cli.run import ending

    try:
        return _rerun(options.folder, options.overrides, options.config_dir)
    except (PipezooError, KeyboardInterrupt) as error:
        code, line = ending(error)
        print(line, file=sys.stderr)
        return code


def _rerun(folder: Path, changes: Sequence[str], config_dir: Path | None) -> int:
    from pipezoo.cli.hydra_command import hydra_command
    from pipezoo.results.run_dir import fresh_folder, read_result

    before = read_result(folder)
    words, differences = words_of(folder, config_dir)
    for line in differences:
        print(line)
    target = next((word.partition("=")[2] for word in changes if key_of(word) == "hydra.run.dir"), fresh_folder())
    changed = {key_of(word) for word in changes}
    words = [word for word in words if key_of(word) not in changed] + list(changes)
    words += [] if "hydra.run.dir" in changed else [f"hydra.run.dir={target}"]
    code = hydra_command(words + ([] if config_dir is None else ["--config-dir", str(config_dir)]))
    if code:
        return code
    after = read_result(target)
    lines, same = compare(before, after)
    print(f"\nagain     {folder} -> {target}")
    for line in lines:
        print(line)
    explained = bool(changes or differences or before.get("versions") != after.get("versions"))
    return 0 if same or explained else VerificationError.exit_code


def words_of(folder: Path, config_dir: Path | None = None) -> tuple[list[str], list[str]]:
    """The command line that repeats a run, and what differs today, in words.

    Raises:
        ConfigError: the folder holds no run, or one that cannot be composed any more.
    """
    from pipezoo.config.compose import compose, shown_config
    from pipezoo.results.run_dir import CONFIG
    from pipezoo.results.schedule_file import schedule_file

    stored = _yaml(folder, CONFIG)
    typed = [word for word in _yaml(folder, ".hydra/overrides.yaml") if key_of(word) not in OF_THIS_COMMAND_LINE]
    hydra = _yaml(folder, ".hydra/hydra.yaml")["hydra"]
    _check_sources(folder, hydra, config_dir)
    words, differences = list(typed), []
    cfg, choices = compose(words, config_dir)
    for group, choice in hydra["runtime"]["choices"].items():
        if "/" not in group and choice is not None and choices.get(group) != choice:
            differences.append(
                f"differs   {group}={choices.get(group)} is what conf/ says today; it was {choice}, and is again"
            )
            words.append(f"{group}={choice}")
    if differences:
        cfg, _ = compose(words, config_dir)
    today = dict(leaves(shown_config(cfg)))
    for key, value in leaves(stored):
        if key.split(".")[0] in OF_THIS_COMMAND_LINE or (key in today and today[key] == value):
            continue
        if _elsewhere(value):
            continue
        now = literal(today[key]) if key in today else "not a key any more"
        differences.append(f"differs   {key}={literal(value)} then, {now} in conf/ today; it is set back")
        words.append(f"{'' if key in today else '+'}{key}={literal(value)}")
    order, ran = stored.get("schedule", {}).get("file"), schedule_file(folder)
    if order and not Path(order).exists() and ran is not None:
        differences.append(f"differs   schedule.file={order} is gone; what ran is read from {ran}")
        words = [word for word in words if key_of(word) != "schedule.file"]
        words.append(f"schedule.file={literal(str(ran))}")
    return words, differences


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What came out differently, in words, and whether the losses are the same bit for bit."""
    lines = []
    for name in sorted({*before.get("versions", {}), *after.get("versions", {})}):
        then, now = (result.get("versions", {}).get(name) for result in (before, after))
        if then != now:
            lines.append(f"versions  {name} {then} then, {now} now")
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


def _check_sources(folder: Path, hydra: Mapping[str, Any], config_dir: Path | None) -> None:
    """Code is trusted by the one who types, so a folder cannot bring its own."""
    for source in hydra["runtime"].get("config_sources", ()):
        if source.get("provider") == "command-line" and config_dir is None:
            path = str(source.get("path")).removeprefix("file://")
            raise ConfigError(
                f"{folder}: ran with your own YAML files, which count when you name them: --config-dir {path}"
            )


def _yaml(folder: Path, name: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(regular_file(folder / name).read_text(encoding="utf-8")) or []
    except OSError as error:
        inside = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
        hint = f"; it is a sweep, run one of its runs again: {', '.join(inside)}" if inside else ""
        raise ConfigError(f"{folder}: is not the folder of a run, there is no {name}{hint}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{folder / name}: {' '.join(str(error).split())}") from error


def _elsewhere(value: Any) -> bool:
    """True for a path inside the ``conf/`` of another checkout or machine, which is found again in today's."""
    return isinstance(value, str) and "/conf/" in value and not Path(value).exists()
