"""How text and numbers look in a report: hostile characters made visible, units beside numbers.

Answers, prompts and names were written by models and strangers. Escaping HTML is the template's work (autoescape);
here the characters that no escaping touches are made visible: terminal sequences, bidirectional overrides, zero-width
and tag characters, lone surrogates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from trimtab.progress import printable
from trimtab.records import Estimate

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")
MISSING = "not measured"


def visible(text: str) -> str:
    """`text` with everything that could steer a terminal or reorder a line written out; newlines and tabs stay."""
    return printable(text.replace("\r\n", "\n"), keep_newlines=True)


def shorten(text: str, *, limit: int) -> str:
    """The first `limit` characters and, when some were left out, how many."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} characters more)"


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", visible(str(text))).replace("\n", " ⏎ ").replace("\t", " ")


def fence(text: str) -> str:
    """A fenced block whose fence no run of backticks in `text` can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{visible(text)}\n{marks}"


def emphasis(text: str) -> list[tuple[str, bool]]:
    """`a **b** c` as parts, each with whether it is to be stressed. An unpaired mark is text."""
    parts = text.split("**")
    if len(parts) % 2 == 0:
        return [(text, False)]
    return [(part, i % 2 == 1) for i, part in enumerate(parts) if part]


def counted(n: int, noun: str) -> str:
    """`1 prompt`, `1,024 prompts`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def number(value: float | None, *, digits: int = 1) -> str:
    """A number for people; None and NaN are words, never 0."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-", "−")


def significant(value: float | None, *, digits: int = 3) -> str:
    """A number of any size with `digits` significant ones."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 6:
        return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", "−")
    return f"{value:.{digits - 1}e}".replace("-", "−")


def interval(bounds: Sequence[float | None] | None, *, digits: int = 1) -> str:
    """`58.9 to 67.5`, or why there is none."""
    if bounds is None or any(end is None for end in bounds):
        return "no interval"
    return f"{number(bounds[0], digits=digits)} to {number(bounds[1], digits=digits)}"


def with_sign(value: float | None, *, digits: int = 1) -> str:
    """A change, with its sign."""
    text = number(value, digits=digits)
    return f"+{text}" if value is not None and value > 0 else text


def estimate_text(estimate: Estimate | None, *, digits: int = 1) -> str:
    """`63.2 [58.9, 67.5]`, for tables."""
    if estimate is None:
        return MISSING
    return value_text(estimate.value, estimate.ci95, digits=digits)


def value_text(value: float | None, ci95: Sequence[float | None] | None, *, digits: int = 1) -> str:
    """`estimate_text` of a value and bounds that are no estimate; without both bounds the value stands alone."""
    if value is None:
        return MISSING
    centre = number(value, digits=digits)
    if ci95 is None or any(end is None for end in ci95):
        return centre
    low, high = (number(end, digits=digits) for end in ci95)
    return f"{centre} [{low},\u00a0{high}]"


def columns(rows: Sequence[Sequence[str]], *, align: Literal["<", ">"] = "<") -> list[str]:
    """A table for a terminal, indented, its columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{visible(cell):{align}{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def duration(seconds: float | None) -> str:
    """`2 min 05 s`."""
    if seconds is None:
        return MISSING
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {remainder:02d} s" if minutes else f"{seconds:.1f} s"


def size(n_bytes: float | None) -> str:
    """`1.4 GB`, powers of ten."""
    if n_bytes is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} B"
