"""The command line that repeats a run, from its folder alone, of which values of known keys pass and nothing else.

    FOLDER/.hydra/overrides.yaml   what was typed               \\
    FOLDER/.hydra/hydra.yaml       which options were chosen      |-> typed again, and what today's conf/ says
    FOLDER/config.yaml             what ran                      /    otherwise is set back to what it was
    FOLDER/schedule.csv            the order that ran, wherever it was read from
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipezoo.cli.folder_words import is_value_of, option_alone, values_alone
from pipezoo.config.overrides import OF_THIS_COMMAND_LINE, key_of, leaves, literal
from pipezoo.errors import ConfigError, ScheduleError
from pipezoo.experiment.registry import conf_dir
from pipezoo.results.renamed import new_key, new_target
from pipezoo.results.run_dir import CONFIG
from pipezoo.results.schedule_file import schedule_file
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import regular_file

OVERRIDES, HYDRA = ".hydra/overrides.yaml", ".hydra/hydra.yaml"


def words_of(folder: Path, config_dir: Path | None = None) -> tuple[list[str], list[str]]:
    """The words that repeat a run, and what differs today, in words.

    Args:
        config_dir: the user's own YAML files, which count when a person names them.

    Raises:
        ConfigError: the folder holds no run, one that cannot be composed any more, or more than values.
    """
    from pipezoo.config.compose import compose, groups, keys, shown_config

    known = (*keys(), *groups())
    stored, options = _stored(folder, known), _options(folder, groups())
    words = values_alone(_yaml(folder, OVERRIDES), f"{folder / OVERRIDES}", known, groups())
    words = [_of_today(word) for word in words]
    gone = [] if config_dir is not None else [group for group, option in options.items() if not _is_ours(group, option)]
    if own := [f"{group}={options[group]}" for group in gone if group != "experiment"]:
        where = next(iter(_own_folders(folder)), "FOLDER")
        raise ConfigError(
            f"{folder}: ran with your own YAML files ({', '.join(own)}), which count when you name them: "
            f"--config-dir {where}"
        )
    if "experiment" in gone:
        words, differences = _all_of_it(folder, words, stored, options, groups())
        return _with_the_order(folder, stored.get("schedule.file"), words, differences)
    differences = []
    cfg, choices = compose(words, config_dir)
    for group, option in options.items():
        if choices.get(group) != option:
            differences.append(
                f"differs   {group}={choices.get(group)} is what conf/ says today; it was {option}, and is again"
            )
            words.append(option_alone(group, option, f"{folder / HYDRA}", groups()))
    cfg, _ = compose(words, config_dir)
    today = dict(leaves(shown_config(cfg)))
    for key, value in stored.items():
        if (key in today and today[key] == value) or _elsewhere(value):
            continue
        now = literal(today[key]) if key in today else "not a key any more"
        differences.append(f"differs   {key}={literal(value)} then, {now} in conf/ today; it is set back")
        words.append(f"{'' if key in today else '+'}{key}={literal(value)}")
    return _with_the_order(folder, stored.get("schedule.file"), words, differences)


def _all_of_it(
    folder: Path, words: Sequence[str], stored: Mapping[str, Any], options: Mapping[str, str], groups: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The words of a run whose experiment is not at hand: every option and every value, as they are in the folder."""
    said_by = f"{folder / HYDRA}"
    kept = [word for word in words if key_of(word) not in groups]
    chosen = [
        option_alone(group, option, said_by, groups) for group, option in options.items() if group != "experiment"
    ]
    values = {
        key: value for key, value in stored.items() if key not in groups and value != {} and not _elsewhere(value)
    }
    why = f"is not in conf/; its values are read from {folder / CONFIG}"
    differences = [f"differs   experiment={options['experiment']} {why}"]
    return [*kept, *chosen, *(f"++{key}={literal(value)}" for key, value in values.items())], differences


def _stored(folder: Path, known: Sequence[str]) -> dict[str, Any]:
    """The values of a run by key, under the names of today."""
    found = _yaml(folder, CONFIG)
    if not isinstance(found, dict):
        raise ConfigError(f"{folder / CONFIG}: is not the config of a run")
    stored = {}
    for key, value in leaves(found):
        if key.partition(".")[0] in OF_THIS_COMMAND_LINE:
            continue
        if not is_value_of(key, known):
            raise ConfigError(f"{folder / CONFIG}: {key!r}: is not a known key, and a folder brings nothing else")
        new = new_target(value) if key.endswith("_target_") and isinstance(value, str) else None
        stored[new_key(key) or key] = new or value
    return stored


def _options(folder: Path, groups: Sequence[str]) -> dict[str, str]:
    """The options that were chosen, by group."""
    try:
        chosen = dict(_yaml(folder, HYDRA)["hydra"]["runtime"]["choices"])
    except (LookupError, TypeError, ValueError):
        raise ConfigError(f"{folder / HYDRA}: is not what Hydra wrote for a run") from None
    return {group: str(option) for group, option in chosen.items() if group in groups and option is not None}


def _own_folders(folder: Path) -> list[str]:
    """The folders of YAML files that the command line named."""
    sources = _yaml(folder, HYDRA)["hydra"]["runtime"].get("config_sources") or ()
    named = [source for source in sources if isinstance(source, Mapping) and source.get("provider") == "command-line"]
    return [str(source.get("path")).removeprefix("file://") for source in named]


def _is_ours(group: str, option: str) -> bool:
    inside = (conf_dir() / group / f"{option}.yaml").resolve()
    return inside.is_file() and inside.is_relative_to(conf_dir().resolve())


def _of_today(word: str) -> str:
    """A word whose key or target was renamed, under the new name."""
    key, equals, value = word.partition("=")
    bare = key.lstrip("+~")
    new = new_target(value.strip("'\"")) if bare.endswith("_target_") else None
    return f"{key[: len(key) - len(bare)]}{new_key(bare) or bare}{equals}{new or value}"


def _with_the_order(folder: Path, file: Any, words: list[str], differences: list[str]) -> tuple[list[str], list[str]]:
    """What ran is in the folder; the file it was read from may hold something else by now, or be gone."""
    ran = schedule_file(folder)
    if not isinstance(file, str) or ran is None:
        return words, differences
    if not (why := _changed(Path(file.replace("${conf_dir:}", str(conf_dir()))), ran)):
        return words, differences
    words = [word for word in words if key_of(word) != "schedule.file"]
    differences.append(f"differs   schedule.file={file} {why}; what ran is read from {ran}")
    return [*words, f"schedule.file={literal(str(ran))}"], differences


def _changed(file: Path, ran: Path) -> str:
    """What has become of the file of an order since it ran; empty where it is the same order."""
    if not file.is_file():
        return "is gone"
    try:
        now, then = Schedule.from_csv(file).compute_only(), Schedule.from_csv(ran).compute_only()
    except ScheduleError:
        return "is no order any more"
    return "" if now == then else "is another order today"


def _yaml(folder: Path, name: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(regular_file(folder / name).read_text(encoding="utf-8")) or []
    except OSError as error:
        inside = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
        hint = f"; it is a sweep, run one of its runs again: {', '.join(inside)}" if inside else ""
        raise ConfigError(f"{folder}: is not the folder of a run, there is no {name}{hint}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{folder / name}: {' '.join(str(error).split())}") from error


def _elsewhere(value: Any) -> bool:
    """True for a path inside the ``conf/`` of another checkout or machine, which is found again in today's."""
    return isinstance(value, str) and "/conf/" in value and not Path(value).exists()
