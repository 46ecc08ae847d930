"""Keys that mean nothing, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def unknown_key(key: str, known: Iterable[str], where: str) -> str:
    """
    What to say of a key that means nothing.

    Args:
        key (`str`): The key.
        known (`Iterable[str]`): The keys that mean something.
        where (`str`): Where it stood, such as `"in run.yaml"`.

    Returns:
        `str`: The message, with the closest right key.
    """
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean `{close[0]}`?" if close else f"The keys are: {', '.join(known)}."
    return f"Unknown key `{key}` {where}. {hint}"


def check_keys(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """
    Check the keys of a mapping.

    Args:
        values (`Mapping`): The mapping.
        known (`Iterable[str]`): The keys that mean something.
        where (`str`): What the mapping is called.

    Raises:
        ValueError: If there is another key. The message names it and the closest right one.
    """
    known = set(known)
    for key in values:
        if key not in known:
            raise ValueError(unknown_key(key, known, f"in {where}"))


__all__ = ["check_keys", "unknown_key"]
