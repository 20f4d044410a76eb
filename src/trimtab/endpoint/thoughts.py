"""What a reasoning model thinks aloud in its text, which is no part of its answer."""

from __future__ import annotations

import re

_TAGS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE, Gemma
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss, where no parser took them away
)


def _tag(tag: str) -> str:
    """The tag, unless it stands in quotation marks or backticks: then it is spoken of."""
    return rf"(?:(?<![`\"'“‘]){re.escape(tag)}|{re.escape(tag)}(?![`\"'”’]))"


def without_thoughts(text: str) -> str:
    """The text after and between thoughts, stripped.

    A closing tag alone ends thoughts that the chat template opened; an opening tag alone, at the start, means that
    the reply ended within them.
    """
    for start_tag, end_tag in _TAGS:
        if start_tag.lower() not in text.lower() and end_tag.lower() not in text.lower():
            continue
        text = re.sub(f"{_tag(start_tag)}.*?{_tag(end_tag)}", "", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.split(_tag(end_tag), text, flags=re.IGNORECASE)[-1]
        text = re.sub(rf"\A\s*{re.escape(start_tag)}.*", "", text, flags=re.DOTALL | re.IGNORECASE)
    return text.strip()
