"""One page from a template: its style, its scripts and its data inside, its policy above, and nothing from elsewhere.

Whatever a config or an error says is text: templates escape it, JSON inside the page has no ``<``, and the page's
policy forbids every script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipezoo.report.colors import MEANING

ASSETS = Path(__file__).parent / "assets"
LANES, STUDIO, TABLE = ("waits.js", "lanes.js"), ("clock.js", "studio.js"), ("table.js",)


def render(
    template: str, title: str, data: Any = None, scripts: Sequence[str] = LANES, orders: Any = None, **values: Any
) -> str:
    """A page; ``data`` and ``orders`` are for its script, everything else is escaped unless it is ``Markup``."""
    style, code = _asset("page.css"), "".join(map(_asset, scripts))
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(code)}'; "
    policy += "base-uri 'none'; form-action 'none'"
    used = {op for line in (data or {}).get("timelines", ()) for op in line["ops"]}
    return (
        _templates()
        .get_template(template)
        .render(
            title=title,
            policy=policy,
            style=Markup(style),
            script=Markup(code),
            data=_script_json(data),
            orders=_script_json(orders),
            has_timelines=bool(data),
            unit_note="Times are in units of the cost." if data and data.get("unit", "s") != "s" else "",
            **{"legend": legend(used), "refresh": 0} | values,
        )
    )


def legend(used: set[int]) -> list[dict[str, str]]:
    """Letters and meanings of the ops that a picture shows."""
    return [{"name": op.letter, "meaning": meaning} for op, meaning in MEANING.items() if op in used]


@cache
def compile_templates() -> None:
    """Compile what pages are made from, so that processes that are forked from this one need not."""
    for name in _templates().list_templates(extensions=["html"]):
        _templates().get_template(name)


@cache
def _templates() -> Environment:
    loader = PackageLoader("pipezoo.report", "assets")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _script_json(data: Any) -> Markup:
    """JSON that no HTML parser can take for markup."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
