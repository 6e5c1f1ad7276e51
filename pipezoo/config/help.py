"""What ``--help`` shows: the groups, and the keys with their comments as they stand in ``conf/config.yaml``."""

from __future__ import annotations

from pathlib import Path

HELP = """\
pipezoo: pipelines of PyTorch models, trained for real and proved against one device

  python -m pipezoo key=value ...                  train a pipeline (first word verify, simulate, plan: another task)
  python -m pipezoo -m key=a,b ...                 a sweep: every combination, one table at the end
  python -m pipezoo -m sweep.resume=FOLDER         go on with a sweep that was cut short
  python -m pipezoo report FOLDER                  read what a run left behind
  python -m pipezoo rerun FOLDER                   run it again and say what differs

  python -m pipezoo model=example_code model.splits=6
  python -m pipezoo model=gpt stages=4 schedule=interleaved_1f1b optimizer.lr=3e-3

Groups: group=option chooses, group.key=value sets (--cfg job shows all keys as composed, -p model those of one group)

$APP_CONFIG_GROUPS
Keys:

{keys}

Your own groups: --config-dir FOLDER adds FOLDER/model/mine.yaml as model=mine
Tab completion: eval "$$(pipezoo -sc install=bash)"
Hydra's own options: --hydra-help
"""


def help_text(config: Path) -> str:
    """The template that Hydra fills in; ``$APP_CONFIG_GROUPS`` becomes the groups and their options."""
    lines = config.read_text(encoding="utf-8").partition("\nhydra:")[0].splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("task:"))
    keys = "\n".join(f"  {line}" if line else "" for line in lines[first:])
    return HELP.replace("{keys}", keys.rstrip().replace("$", "$$"))
