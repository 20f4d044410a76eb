"""How much of a text one tokenizer's ids hold (`text_loss` compares), and the row's refusal where it is too little."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from trimtab.data.problems import Reason, RowFaultError
from trimtab.data.text_loss import MOST_LOST, lost_characters, lost_layout, lost_spaces, size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from trimtab.data.rendered_prompt import Ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of ids with every special token spelled out."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


@dataclass(frozen=True, eq=False)
class LossMeter:
    """Compares texts with what comes back of them from the ids of one tokenizer."""

    tokenizer: PreTrainedTokenizerBase

    def loss(self, text: str, ids: Ids, *, of: Sequence[str], subject: str) -> Counter[str]:
        """The characters that `ids`, made from `text`, do not hold. Raises `RowFaultError` when they are many.

        of: the contents that stand in `text`.
        """
        unknown = self._unknown
        if unknown is not None and unknown.text not in text:
            ids = tuple(token for token in ids if token != unknown.id)
        text_left = self._decode_plainly(ids)
        if text_left == text:
            return Counter()
        losses = lost_characters(text, text_left)
        n_characters = sum(map(size, of))
        if losses.total() <= MOST_LOST * n_characters:  # else words are fewer as they vanish whole
            losses[" "] += lost_spaces(of, text=text, text_left=text_left)
        if losses.total() > MOST_LOST * n_characters:
            character = losses.most_common(1)[0][0]
            share = f"{losses.total()} of {n_characters} characters of {subject}"
            detail = f"the tokenizer cannot write {share}: {character!r}, …"
            raise RowFaultError(Reason.TEXT_LOST, detail)
        return +losses + lost_layout(of, text=text, text_left=text_left)

    def _decode_plainly(self, ids: Ids) -> str:
        """As `decode`, at less than half the cost where the library's own decoder can be asked."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return decode(self.tokenizer, ids) if backend is None else str(backend.decode(ids, skip_special_tokens=False))

    @cached_property
    def _unknown(self) -> _Token | None:
        """What stands for all that the vocabulary lacks."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        number: int | None = self.tokenizer.unk_token_id
        if number is None and backend is not None:
            model = json.loads(backend.to_str())["model"]
            number, text = model.get("unk_id"), model.get("unk_token")
            number = backend.token_to_id(text) if number is None and text is not None else number
        return None if number is None else _Token(number, decode(self.tokenizer, [number]))


@dataclass(frozen=True, slots=True)
class _Token:
    id: int
    text: str
