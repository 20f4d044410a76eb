"""Which token ends a turn: what a response is closed with, and at which ids generation stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.data.rendering import Form, PlainForm
from trimtab.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """`id` closes every response that was not cut; `stop_ids` are all ids at which generation ends, `id` first.

    `text` is what the template writes behind an answer, with the end in it; empty where it writes no end, so that the
    id has to be added. `marks` is the text of what stands in it before the end (`</answer>`), as answers decode it.
    """

    id: int
    stop_ids: tuple[int, ...]
    text: str = ""
    marks: str = ""


def find_turn_end(
    tokenizer: PreTrainedTokenizerBase, form: Form, *, generation_end_ids: int | Sequence[int] | None
) -> TurnEnd:
    """The first token behind an answer that ends generation: in the form's closing, else in what it writes before the
    next question (GLM ends an answer with `<|user|>`). A closing without one ends with its first added token: base
    models with a chat template name the end of a text only. A form that writes no end gets the model's own.

    Raises ModelError when nothing ends a response.
    """
    ends = [generation_end_ids] if isinstance(generation_end_ids, int) else list(generation_end_ids or ())
    eos: int | None = tokenizer.eos_token_id
    stops = [*ends, *([] if eos is None else [eos])]
    marks_by_id = tokenizer.added_tokens_decoder
    visible = {token for token in marks_by_id if not marks_by_id[token].content.isspace()}
    for text, candidates in ((form.ending, set(stops)), (form.between, set(stops)), (form.ending, visible)):
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        place = next((place for place, token in enumerate(ids) if token in candidates), None)
        if place is not None:
            marks = tokenizer.decode(ids[:place], skip_special_tokens=True).strip()
            return TurnEnd(ids[place], _first(ids[place], stops), text, marks)
    # a plain text ends where the model's own generation does; a template without an end, as its tokenizer says
    end = next(iter(stops if isinstance(form, PlainForm) or eos is None else [eos]), None)
    if end is None:
        raise ModelError(
            "the tokenizer has no end token, so the model could never learn to stop",
            remedy="set eos_token in tokenizer_config.json (and eos_token_id in generation_config.json)",
        )
    return TurnEnd(end, _first(end, stops))


def _first(end: int, stops: Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys((end, *stops)))
