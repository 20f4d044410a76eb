"""What a tokenizer or a template loses of a text: what comes back is compared with what went in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from unicodedata import normalize

# Share of a prompt's or a response's characters. A tokenizer that folds case loses the capitals: .03 to .06 of real
# responses in the mean, more than this in about one of a hundred. What a vocabulary lacks is mostly a whole script.
MOST_LOST = 0.2
_FEWEST_WORDS = 4  # below, one space that a mark swallows is half of them
# line feeds, tabs and indentation: what code and lists are made of
_LAYOUT = re.compile(r"[\n\t]|(?<= ) ")
# templates that know reasoning write their own white space around these
_THINK_MARK = re.compile(r"</?think>")


@dataclass(slots=True)
class TextLoss:
    """Characters of the pairs so far, and those of them that no id stands for, by character."""

    n_characters: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    first_id: str = ""

    def add(self, row_id: str, losses: Counter[str], *, n_characters: int) -> None:
        self.n_characters += n_characters
        if losses and not self.losses:
            self.first_id = row_id
        self.losses.update(losses)

    @property
    def sentences(self) -> list[str]:
        """One line for people, or none where nothing was lost."""
        if not self.losses:
            return []
        commonest = ", ".join(f"{character!r} {count:,}" for character, count in self.losses.most_common(5))
        share = self.losses.total() / max(self.n_characters, 1)
        return [f"the tokenizer cannot write {share:.2%} of the text: {commonest} (first: {self.first_id})"]


def size(text: str) -> int:
    """Characters that are no white space."""
    return len("".join(text.split()))


def lost_characters(text: str, text_left: str) -> Counter[str]:
    """Characters of `text`, white space aside, that `text_left` lacks, each as often as it is lost. Compatibility forms
    (NFKC: `ﬁ` and `fi`) are the same text."""
    bare, bare_left = ("".join(normalize("NFKC", part).split()) for part in (text, text_left))
    return Counter() if bare == bare_left else Counter(bare) - Counter(bare_left)


def lost_spaces(contents: Sequence[str], *, text: str, text_left: str) -> int:
    """Spaces between words of `contents` that are lost in `text_left`; 0 as long as most of the words stay apart.

    contents: the messages in `text`, which was rendered from them. Only what stands inside them counts, since marks of
        some families swallow the white space beside them.
    """
    n_gaps = min(sum(max(len(content.split()) - 1, 0) for content in contents), len(text.split()) - 1)
    n_left = len(text_left.split()) - 1
    return n_gaps - n_left if n_gaps + 1 >= _FEWEST_WORDS and 2 * n_left < n_gaps else 0


def lost_layout(contents: Sequence[str], *, text: str, text_left: str) -> Counter[str]:
    """Line feeds, tabs and spaces of indentation inside `contents` that are lost in `text_left`; as `lost_spaces`."""
    inside = sum((Counter(_LAYOUT.findall(content.strip())) for content in contents), Counter[str]())
    return (inside & Counter(_LAYOUT.findall(text))) - Counter(_LAYOUT.findall(text_left))


def is_within(text: str, template_text: str) -> bool:
    """Whether a template put the whole of a text into what it renders; white space at the edges, and around the marks
    of reasoning, does not count."""
    if text.strip() in template_text:
        return True
    if "".join(text.split()) not in "".join(template_text.split()):
        return False
    return all(part.strip() in template_text for part in _THINK_MARK.split(text))
