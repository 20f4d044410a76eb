"""Why a row was left out: a closed set of reasons, each with the sentence that people read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Every reason for which a row is dropped. The value is the key in `audit.json`."""

    UNREADABLE = "malformed"
    PROMPT_MISMATCH = "prompt_mismatch"
    WRONG_ROLES = "wrong_roles"
    NO_LABEL = "no_label"
    ONE_RESPONSE = "one_response"
    NO_PREFERENCE = "no_preference"
    EMPTY_PROMPT = "empty_prompt"
    EMPTY_RESPONSE = "empty_response"
    IDENTICAL = "identical_responses"
    DUPLICATE = "duplicate"
    CONTRADICTORY = "contradictory"
    NOT_READ = "not_read"
    CONTROL_TOKEN = "control_token"  # noqa: S105 - the name of a reason, no secret
    TEMPLATE_REFUSED = "template_refused"
    TEXT_LOST = "text_lost"
    UNKNOWN_TO_MODEL = "unknown_to_model"
    PROMPT_TOO_LONG = "prompt_too_long"
    CUT_BELOW_MINIMUM = "cut_below_minimum"
    IDENTICAL_AFTER_CUT = "identical_after_cut"
    HELD_OUT = "held_out"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES: dict[Reason, str] = {
    Reason.UNREADABLE: "could not be read",
    Reason.PROMPT_MISMATCH: "chosen and rejected do not answer the same prompt",
    Reason.WRONG_ROLES: "speakers are not (system,) user, assistant, …, with results of tools behind calls alone",
    Reason.NO_LABEL: "the label is neither true nor false",
    Reason.ONE_RESPONSE: "fewer than two scored responses",
    Reason.NO_PREFERENCE: "its scores prefer none of its responses",
    Reason.EMPTY_PROMPT: "the last message of the prompt is empty",
    Reason.EMPTY_RESPONSE: "a response is empty or only white space",
    Reason.IDENTICAL: "chosen and rejected are the same text",
    Reason.DUPLICATE: "the same as an earlier row (the first one is kept)",
    Reason.CONTRADICTORY: "another row says the opposite (neither is kept)",
    Reason.NOT_READ: "holds a part that trimtab does not read, and would mean something else without it",
    Reason.CONTROL_TOKEN: "the text spells one of the model's control tokens",
    Reason.TEMPLATE_REFUSED: "the chat template does not render this conversation",
    Reason.TEXT_LOST: "the template or the tokenizer loses a part of the text",
    Reason.UNKNOWN_TO_MODEL: "the tokenizer writes a token that the model's embedding does not have",
    Reason.PROMPT_TOO_LONG: "the last user message alone does not fit the prompt's limit",
    Reason.CUT_BELOW_MINIMUM: "the window leaves too little room for a response",
    Reason.IDENTICAL_AFTER_CUT: "chosen and rejected are the same tokens",
    Reason.HELD_OUT: "its prompt is in the held-out set (data.eval), so it is left out of training",
}


def source_of(row_id: str) -> str:
    """The name of the source in a row's id, which is `name:row`."""
    return row_id.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that is no usable pair. `id` names the row, `detail` says what was found there."""

    id: str
    reason: Reason
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        return {"id": self.id, "reason": self.reason.value, "detail": self.detail}


class RowFaultError(Exception):
    """Raised while one row is being read; the caller, who knows the row's id, makes it a `RowProblem`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def at(self, row_id: str) -> RowProblem:
        return RowProblem(row_id, self.reason, self.detail)
