"""Values in other trainers' configurations, each as what it has to be. What is something else is refused by its key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trimtab.errors import ConfigError

_LONGEST_SHOWN = 60  # characters of a value


def as_number(key: str, value: Any) -> float:
    """Also of a text: YAML's older readers make one of 5e-7. Raises ConfigError where it is no finite number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(key, value, "a number")
    return number


def as_whole(key: str, value: Any) -> int:
    """Raises ConfigError where it is no whole number."""
    number = as_number(key, value)
    if not number.is_integer():
        raise _wrong(key, value, "a whole number")
    return value if isinstance(value, int) else int(number)


def as_word(key: str, value: Any) -> str:
    """Raises ConfigError where it is neither a word nor a number, which may be a name."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(key, value, "a word")
    return str(value)


def as_words(key: str, value: Any) -> list[str]:
    """One word, or a list of them; none where it is not set. Raises ConfigError where it is something else."""
    return [as_word(key, item) for item in as_list(key, [value] if isinstance(value, str) else value)]


def as_list(key: str, value: Any) -> list[Any]:
    """Empty where it is not set. Raises ConfigError where it is something else."""
    if value is not None and not isinstance(value, list):
        raise _wrong(key, value, "a list")
    return value or []


def as_mapping(key: str, value: Any) -> Mapping[str, Any]:
    """Empty where it is not set. Raises ConfigError where it is something else."""
    if value is not None and not isinstance(value, Mapping):
        raise _wrong(key, value, "a table of keys")
    return value or {}


def _wrong(key: str, value: Any, noun: str) -> ConfigError:
    text = repr(value)
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[:_LONGEST_SHOWN]}…"
    return ConfigError(f"{key} is {text}, and has to be {noun}", remedy=f"write {noun} there, or leave {key} out")
