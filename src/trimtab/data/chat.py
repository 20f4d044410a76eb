"""From messages to token ids: what the model sees, for training and for generation alike.

With a chat template, a prompt is rendered with the assistant's header, and a response is what the template adds to
that when the assistant's message is appended. Prompt and response are tokenised as one text, and the prompt's tokens
are proved to be its prefix. A response ends with the first end-of-turn token that the template writes after it.

Without one, the plain form is used, behind whatever the tokenizer itself puts first (a BOS, or nothing):
  - one user message: its text and a line feed (unless it ends in white space), then the response;
  - anything longer: the system text, then `User: …` and `Assistant: …`, parted by blank lines and ending in
    `Assistant:`; the response follows after one space.
The response is then closed with the first end id that the model's generation config names, else with the tokenizer's.

A template that has no place for a system message gets its text, and a blank line, in front of the first user message.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trimtab.data.problems import Reason, RowFaultError, RowProblem
from trimtab.data.rendering import DEFAULT_VARIABLES, Form, PlainForm, TemplateForm
from trimtab.errors import DataError, ModelError
from trimtab.records import Message, Pair, TokenPair, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]

# Texts after which a response is tokenised when its first token would merge with the last one of the prompt.
_ANCHORS = ("\n", "a", ":", "1")


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """What one tokenizer's model sees of a conversation. Make it with `ChatTemplate.of`.

    `end_id` closes every response that was not cut; `stop_ids` are all ids at which generation ends, `end_id` first.
    """

    tokenizer: PreTrainedTokenizerBase
    form: Form
    end_id: int
    stop_ids: Ids
    _first_ids: Ids
    _writes_end: bool

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        generation_end_ids: int | Sequence[int] | None = None,
        variables: Mapping[str, object] = DEFAULT_VARIABLES,
    ) -> ChatTemplate:
        """Probe a tokenizer. `generation_end_ids` is `eos_token_id` of the model's generation config, as it stands.

        `variables` are given to the chat template. Raises `ModelError` when the template cannot be used or nothing ends
        a response.
        """
        ends = _as_ids(generation_end_ids)
        if tokenizer.chat_template is None:
            form: Form = PlainForm()
            end_id = ends[0] if ends else tokenizer.eos_token_id
            writes_end = False
        else:
            form = TemplateForm.probe(tokenizer, variables=variables)
            written = _first_added_token(tokenizer, form.closing)
            writes_end = written is not None
            end_id = written if writes_end else tokenizer.eos_token_id
        if end_id is None:
            raise ModelError(
                "the tokenizer has no end token, so the model could never learn to stop",
                remedy="set eos_token in tokenizer_config.json (and eos_token_id in generation_config.json)",
            )
        others = (*ends, *(() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)))
        first_ids = _first_ids(tokenizer) if isinstance(form, PlainForm) else ()
        return cls(tokenizer, form, end_id, tuple(dict.fromkeys((end_id, *others))), first_ids, writes_end)

    # ---- prompts

    def prompt_ids(self, messages: Sequence[Message], *, max_prompt_tokens: int | None = None) -> Ids:
        """Ids of a prompt with the assistant's header, as training and generation see it.

        Whole messages are left out, oldest first (the system message is kept if it can be), until at most
        `max_prompt_tokens` are left. Raises `DataError` when the last user message alone is longer, or when the
        template refuses the conversation.
        """
        try:
            return self._fit(messages, limit=max_prompt_tokens).ids
        except RowFaultError as fault:
            raise DataError(
                f"the prompt cannot be used: {fault.reason.sentence}: {fault.detail}",
                remedy="raise the prompt's token limit, or shorten or correct this prompt",
            ) from None

    def _fit(self, messages: Sequence[Message], *, limit: int | None) -> _FittedPrompt:
        """The longest form of a prompt that fits: everything, or fewer and fewer of its turns, oldest first."""
        if not messages:
            raise RowFaultError(Reason.EMPTY_PROMPT, "there is no message")
        self._refuse_control_tokens(messages)
        whole = self._prompt(messages, messages)
        if limit is None or len(whole.ids) <= limit:
            return whole
        shortened = _shortened(messages)
        # Lengths fall from one to the next, so the first that fits is found by bisection.
        place = bisect_left(shortened, True, key=lambda kept: len(self._prompt(kept, messages).ids) <= limit)
        # Without its system message a prompt may get longer (templates write one of their own), so that comes last.
        kept = shortened[place] if place < len(shortened) else _last_turn(messages)
        fitted = self._prompt(kept, messages)
        if len(fitted.ids) > limit:
            detail = f"the last user message takes {len(fitted.ids)} tokens with its marks, the limit is {limit}"
            raise RowFaultError(Reason.PROMPT_TOO_LONG, detail)
        return fitted

    def _prompt(self, kept: Sequence[Message], whole: Sequence[Message]) -> _FittedPrompt:
        labelled = len(whole) > 1
        text = self.form.prompt(kept, labelled=labelled)
        return _FittedPrompt(tuple(kept), labelled, text, self._encode([text])[0])

    # ---- pairs

    def tokenize_pair(
        self,
        pair: Pair,
        *,
        max_prompt_tokens: int,
        max_response_tokens: int,
        max_tokens: int | None = None,
        min_response_tokens: int = 1,
    ) -> TokenPair | RowProblem:
        """Ids of a pair within the limits, all in tokens.

        The prompt is shortened as in `prompt_ids`. Each response is cut on its own to `max_response_tokens`, and to
        what the model's window `max_tokens` leaves after the prompt; a cut response has no end-of-turn token. A pair
        whose response would be cut to fewer than `min_response_tokens` is a `RowProblem`, as is one whose prompt does
        not fit.
        """
        window = max_tokens if max_tokens is not None else max_prompt_tokens + max_response_tokens
        try:
            prompt = self._fit_with_room(pair.prompt, max_prompt_tokens, window, min_response_tokens)
            chosen, rejected = self._responses(prompt, (pair.chosen, pair.rejected))
        except RowFaultError as fault:
            return fault.at(pair.id)
        room = min(max_response_tokens, window - len(prompt.ids))
        if room < min_response_tokens and max(len(chosen), len(rejected)) > room:
            detail = f"the prompt takes {len(prompt.ids)} of {window} tokens, which leaves {room} for a response"
            return RowProblem(pair.id, Reason.CUT_BELOW_MINIMUM, detail)
        return TokenPair(pair.id, prompt.ids, chosen[:room], rejected[:room], len(chosen) > room, len(rejected) > room)

    def _fit_with_room(
        self, messages: Sequence[Message], max_prompt_tokens: int, window: int, min_response_tokens: int
    ) -> _FittedPrompt:
        """Leave out turns until a response of the least length fits; if it never does, until the prompt fits."""
        try:
            return self._fit(messages, limit=min(max_prompt_tokens, window - min_response_tokens))
        except RowFaultError as fault:
            if fault.reason is not Reason.PROMPT_TOO_LONG or min_response_tokens <= 1:
                raise
            return self._fit(messages, limit=min(max_prompt_tokens, window - 1))

    def _responses(self, prompt: _FittedPrompt, responses: Sequence[str]) -> list[Ids]:
        """Ids of each response to one prompt, closed by the end-of-turn id."""
        self._refuse_control_tokens([Message("assistant", response) for response in responses])
        texts = [
            self.form.exchange(prompt.messages, response=response, labelled=prompt.labelled) for response in responses
        ]
        if not self._writes_end and self.form.closing:
            texts = [text.removesuffix(self.form.closing) for text in texts]
        continuations = [_continuation(prompt.text, text) for text in texts]
        whole = self._encode([prompt.text + continuation for continuation in continuations])
        return [
            self._closed(self._after(prompt, ids, continuation))
            for ids, continuation in zip(whole, continuations, strict=True)
        ]

    def _after(self, prompt: _FittedPrompt, whole: Ids, continuation: str) -> Ids:
        """The part of `whole` behind the prompt.

        Where tokens of prompt and response merge in the joint text, generation could never produce them, so the
        response is tokenised behind a neutral text instead and the result is proved to spell the same.
        """
        if whole[: len(prompt.ids)] == prompt.ids:
            return whole[len(prompt.ids) :]
        spelled = self.decode(whole)
        for anchor in _ANCHORS:
            alone, anchored = self._encode([anchor, anchor + continuation])
            ids = anchored[len(alone) :]
            if anchored[: len(alone)] == alone and self.decode(prompt.ids + ids) == spelled:
                return ids
        raise RowFaultError(Reason.TEMPLATE_REFUSED, "the response's first token cannot be told from the prompt's last")

    def _closed(self, ids: Ids) -> Ids:
        return ids[: ids.index(self.end_id) + 1] if self.end_id in ids else (*ids, self.end_id)

    # ---- text and ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids with every special token spelled out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, texts: list[str]) -> list[Ids]:
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # lengths are this module's business; the tokenizer would warn about model_max_length
        )
        return [(*self._first_ids, *ids) for ids in encoded["input_ids"]]

    def _refuse_control_tokens(self, messages: Sequence[Message]) -> None:
        """A message that spells `<|im_end|>` would end a turn that goes on."""
        for message in messages:
            if found := self._control_tokens.search(message.content):
                raise RowFaultError(Reason.CONTROL_TOKEN, f"a message of the {message.role} holds {found[0]!r}")

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder
        spelled = {token.content for number, token in added.items() if token.special or number == self.end_id}
        return re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))) or r"(?!)")

    @cached_property
    def digest(self) -> str:
        """sha256 of all that turns messages into ids: tokenizer, rendered form, end id, and the ids of a probe."""
        probe = (Message("user", "Hi, 12 é?\n"), Message("assistant", " Yes. "), Message("user", "Why"))
        return digest(
            {
                "tokenizer": _tokenizer_identity(self.tokenizer),
                "form": self.form.identity,
                "first_ids": self._first_ids,
                "end_id": self.end_id,
                "probe": [self._prompt(probe[-1:], probe[-1:]).ids, self._prompt(probe, probe).ids],
            }
        )

    @property
    def sentence(self) -> str:
        """One line for people: which form, and how a response ends."""
        end = f"responses end with {self.tokenizer.convert_ids_to_tokens(self.end_id)} (id {self.end_id})"
        if not isinstance(self.form, TemplateForm):
            return f"no chat template: plain text; {end}"
        fold = "; a system message is put before the first user message" if self.form.folds_system else ""
        return f"the tokenizer's chat template; {end}{fold}"


@dataclass(frozen=True, slots=True)
class _FittedPrompt:
    messages: tuple[Message, ...]
    labelled: bool
    text: str
    ids: Ids


def _shortened(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """What may be left of a prompt, longest first: (the system message and) the turns from a later user message on."""
    system, turns = _system_and_turns(messages)
    starts = [number for number, message in enumerate(turns) if message.role == "user"]
    return [(*system, *turns[start:]) for start in starts[1:]]


def _last_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The last user message (and what, against the rules, may follow it) without the system message."""
    _, turns = _system_and_turns(messages)
    starts = [number for number, message in enumerate(turns) if message.role == "user"]
    return tuple(turns[starts[-1] :]) if starts else tuple(messages)


def _system_and_turns(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    return (messages[:1], messages[1:]) if messages[0].role == "system" else ((), messages)


def _continuation(prompt: str, whole: str) -> str:
    """What the whole text has behind the prompt. The header may differ in its last white space, nowhere else."""
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    bare = prompt.rstrip()
    if whole.startswith(bare):
        return whole[len(bare) :].lstrip()
    raise RowFaultError(
        Reason.TEMPLATE_REFUSED, "with this response the template renders another prompt (reasoning marks in the text?)"
    )


def _as_ids(ids: int | Sequence[int] | None) -> Ids:
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _first_added_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The first token of a text that was added to the vocabulary on purpose: the mark that ends a turn."""
    added = tokenizer.added_tokens_decoder
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return next((number for number in ids if number in added and not added[number].content.isspace()), None)


def _first_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """What the tokenizer itself puts in front of a text; what it may put behind one is left out."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), 0)
    return tuple(dressed[:start])


def _tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What decides a tokenizer's ids, without the truncation and padding state that a call may leave behind."""
    identity: dict[str, Any] = {"special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return identity | {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    described = json.loads(backend.to_str())
    return identity | {"backend": {name: value for name, value in described.items() if name not in _CALL_STATE}}


_CALL_STATE = ("truncation", "padding")
