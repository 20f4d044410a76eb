"""What a tokenizer or a template loses of a text: what comes back is compared with what went in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from unicodedata import normalize

# Share of a prompt's or a response's characters. A tokenizer that folds case loses the capitals: .03 to .06 of real
# responses in the mean, more than this in about one of a hundred. What a vocabulary lacks is mostly a whole script.
MOST_LOST = 0.2
_FEWEST_WORDS = 4  # below, one space that a mark swallows is half of them


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
    """Characters of `text` that `text_left` lacks, each as often as it is lost.

    White space at the edges and between words is the pipeline's own affair as long as words stay apart; where most of
    the words run together, the spaces count. Compatibility forms (NFKC: `ﬁ` and `fi`) are the same text.
    """
    if text == text_left:
        return Counter()
    words, words_left = normalize("NFKC", text).split(), normalize("NFKC", text_left).split()
    bare, bare_left = "".join(words), "".join(words_left)
    losses = Counter() if bare == bare_left else Counter(bare) - Counter(bare_left)
    letters_stay = losses.total() < MOST_LOST * len(bare)  # else words are fewer as they vanish whole
    if letters_stay and len(words) >= _FEWEST_WORDS and 2 * len(words_left) < len(words):
        losses[" "] = len(words) - len(words_left)
    return losses


def is_within(text: str, template_text: str) -> bool:
    """Whether a template put the whole of a text into what it renders; white space does not count."""
    return text.strip() in template_text or "".join(text.split()) in "".join(template_text.split())
