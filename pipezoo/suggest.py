"""How an unknown word is answered: with the one that was probably meant, and with all that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, word: str, choices: Iterable[str]) -> str:
    """``unknown key (did you mean splits?); valid: d_hid, splits``"""
    names = sorted(map(str, choices))
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), folded, n=1, cutoff=0.5)
    meant = f" (did you mean {folded[close[0]]}?)" if close else ""
    return f"unknown {what}{meant}; valid: {', '.join(names) if names else 'none'}"
