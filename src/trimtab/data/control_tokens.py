"""Tokens that stand for a turn's beginning or end, and texts that spell them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase

# `<|im_end|>`, also with the full-width bars of DeepSeek: nobody writes these but as marks
_BAR_MARK = re.compile(r"<[|｜][^<>\s]+[|｜]>")
_BRACKET_MARK = re.compile(r"\s*(<[^<>]+>|\[[^\[\]]+\])\s*")
# The reasoning that a template writes around is text of the answer, and so are its marks.
_REASONING_MARK = re.compile(r"</?\W*(think|reason|thought)\w*\W*>", re.IGNORECASE)
# Marks of published chat templates that are seen in texts once a template was rendered into them. `<s>` and `</s>` are
# HTML, too, so they count only at the edges of a text; Alpaca's and Vicuna's are words, so they count only where
# such a prompt ends.
_TEMPLATE_MARKS = re.compile(
    _BAR_MARK.pattern + r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|\A\s*<s>(?!.*</s>.)|</s>\s*\Z"
    r"|\[(?:/?AVAILABLE_TOOLS|/?TOOL_RESULTS|TOOL_CALLS|/?SYSTEM_PROMPT)\]"
    r"|###\s?(?:Response|Assistant|Answer):?\s*\Z|(?:\A|\s)ASSISTANT:\s*\Z",
    re.DOTALL,
)

# one of them stands in every mark; looking for these first keeps an audit of a million rows fast
_HINTS = (
    "<|",
    "<｜",
    "INST]",
    "SYS>>",
    "_of_turn>",
    "<s>",
    "</s>",
    "_TOOLS]",
    "_RESULTS]",
    "_CALLS]",
    "_PROMPT]",
    "###",
    "ANT:",
)


def control_tokens(
    tokenizer: PreTrainedTokenizerBase, *, stop_ids: Collection[int], template_frame: str
) -> re.Pattern[str]:
    """A pattern of the tokens that no message may spell.

    Those are the special ones, those at which generation ends, what the template writes around
    messages (`template_frame`), and whatever has the form `<|…|>`: many vocabularies do not flag theirs as special.
    """

    def is_control(number: int, token: AddedToken) -> bool:
        text = token.content
        if token.special or number in stop_ids or _BAR_MARK.fullmatch(text.strip()):
            return True
        return (
            text in template_frame
            and bool(_BRACKET_MARK.fullmatch(text))
            and not _REASONING_MARK.fullmatch(text.strip())
        )

    texts = {token.content for number, token in tokenizer.added_tokens_decoder.items() if is_control(number, token)}
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def template_mark(text: str) -> str | None:
    """The first mark of some published chat template that a text holds: it was rendered once already."""
    if not any(hint in text for hint in _HINTS):
        return None
    match = _TEMPLATE_MARKS.search(text)
    return match[0].strip() if match else None
