"""A sentence of the report: `{"text", "tone"}`, with `**…**` in the text for stress."""

from __future__ import annotations

from typing import Literal

from trimtab.reporting.text import number

Tone = Literal["good", "bad", "even", "warn", "plain"]
Sentence = dict[str, str]


def sentence(text: str, tone: Tone) -> Sentence:
    """A number keeps its unit on its line."""
    return {"text": text.replace(" %", "\u00a0%"), "tone": tone}


def signed(value: float | None, *, digits: int = 1) -> str:
    """A change, with its sign."""
    shown = number(value, digits=digits)
    return f"+{shown}" if value is not None and value > 0 else shown
