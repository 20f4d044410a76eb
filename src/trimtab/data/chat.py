"""From messages to token ids: what the model sees, for training and for generation alike.

With a chat template, a prompt is rendered with the assistant's header, and a response is what the template adds to
that when the assistant's message is appended. Prompt and response are tokenised as one text, and the prompt's tokens
are proved to be its prefix. A response ends with the first token behind it that ends generation (`turn_end`).

Nothing may be lost between a row and its ids: the text of a message has to stand in what the template renders, the ids
have to decode to that, and each id has to have a row in the model's embedding.

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from trimtab.data.control_tokens import control_tokens
from trimtab.data.loss_meter import LossMeter, decode
from trimtab.data.problems import Reason, RowFaultError, RowProblem
from trimtab.data.prompt_shortening import last_turn, shorter_prompts
from trimtab.data.rendered_prompt import Ids, RenderedPrompt, ResponseIds, text_behind
from trimtab.data.rendering import DEFAULT_VARIABLES, NO_ARGUMENTS, Arguments, Form, PlainForm, TemplateForm
from trimtab.data.text_loss import TextLoss, is_within, size
from trimtab.data.tokenizer_identity import first_ids, tokenizer_identity
from trimtab.data.tools import is_written, refuse_unwritten, refuse_unwritten_tools
from trimtab.data.turn_end import TurnEnd, find_turn_end
from trimtab.errors import DataError, ModelError
from trimtab.records import Message, Pair, TokenPair, Unpaired, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Texts after which a response is tokenised when its first token would merge with the last one of the prompt.
_ANCHORS = ("\n", "a", ":", "1")


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """What one tokenizer's model sees of a conversation. Make it with `ChatTemplate.of`.

    `turn_end` closes every response that was not cut. `loss` counts what the tokenizer lost of the pairs' texts.
    """

    tokenizer: PreTrainedTokenizerBase
    form: Form
    turn_end: TurnEnd
    embedding_rows: int | None
    _first_ids: Ids
    loss: TextLoss = field(default_factory=TextLoss)

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        generation_end_ids: int | Sequence[int] | None = None,
        embedding_rows: int | None = None,
        variables: Mapping[str, object] = DEFAULT_VARIABLES,
    ) -> ChatTemplate:
        """Probe a tokenizer. `generation_end_ids` is `eos_token_id` of the model's generation config, as it stands;
        `embedding_rows` is the number of tokens that the model knows.

        `variables` are given to the chat template. Raises `ModelError` when the template cannot be used or nothing ends
        a response.
        """
        plain = tokenizer.chat_template is None
        form = PlainForm() if plain else TemplateForm.probe(tokenizer, variables=variables)
        turn_end = find_turn_end(tokenizer, form, generation_end_ids=generation_end_ids)
        return cls(tokenizer, form, turn_end, embedding_rows, first_ids(tokenizer) if plain else ())

    @property
    def end_id(self) -> int:
        return self.turn_end.id

    @property
    def stop_ids(self) -> Ids:
        return self.turn_end.stop_ids

    # ---- prompts

    def prompt_ids(self, messages: Sequence[Message], *, max_prompt_tokens: int | None = None) -> Ids:
        """Ids of a prompt with the assistant's header, as training and generation see it.

        Whole messages are left out, oldest first (the system message is kept if it can be), until at most
        `max_prompt_tokens` are left. Raises `DataError` when the last user message alone is longer, or when the
        template refuses the conversation.
        """
        try:
            return self._fit(messages, NO_ARGUMENTS, limit=max_prompt_tokens).ids
        except RowFaultError as fault:
            raise DataError(
                f"the prompt cannot be used: {fault.reason.sentence}: {fault.detail}",
                remedy="raise the prompt's token limit, or shorten or correct this prompt",
            ) from None

    def _fit(self, messages: Sequence[Message], arguments: Arguments, *, limit: int | None) -> RenderedPrompt:
        """The longest form of a prompt that fits: everything, or fewer and fewer of its turns, oldest first."""
        if not messages:
            raise RowFaultError(Reason.EMPTY_PROMPT, "there is no message")
        self._refuse_control_tokens([*messages, Message("system", json.dumps(arguments, ensure_ascii=False))])
        whole = self._prompt(messages, messages, arguments)
        self._refuse_unknown_ids(whole.ids)
        if limit is None or len(whole.ids) <= limit:
            return whole
        shorter = shorter_prompts(messages)
        # Lengths fall from one to the next, so the first that fits is found by bisection.
        place = bisect_left(shorter, True, key=lambda turns: len(self._prompt(turns, messages, arguments).ids) <= limit)
        # Without its system message a prompt may get longer (templates write one of their own), so that comes last.
        candidate = shorter[place] if place < len(shorter) else last_turn(messages)
        prompt = self._prompt(candidate, messages, arguments)
        if len(prompt.ids) > limit:
            detail = f"the last user message takes {len(prompt.ids)} tokens with its marks, the limit is {limit}"
            raise RowFaultError(Reason.PROMPT_TOO_LONG, detail)
        return prompt

    def _prompt(
        self, messages: Sequence[Message], whole: Sequence[Message], arguments: Arguments = NO_ARGUMENTS
    ) -> RenderedPrompt:
        """`messages` are what is left of the `whole` prompt."""
        multi_turn = len(whole) > 1
        text = self.form.prompt(messages, multi_turn=multi_turn, arguments=arguments)
        return RenderedPrompt(tuple(messages), multi_turn, text, self._encode([text])[0], arguments)

    # ---- pairs

    def tokenize_pair(
        self,
        pair: Pair | Unpaired,
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
            prompt = self._fit_with_room(pair, max_prompt_tokens, window, min_response_tokens)
            losses = self._loss_of_prompt(prompt)
            responses = self._responses(prompt, pair.responses, losses=losses)
        except RowFaultError as fault:
            return fault.at(pair.id)
        n_characters = sum(size(message.text) for message in (*prompt.messages, *pair.responses))
        self.loss.add(pair.id, losses, n_characters=n_characters)
        room = min(max_response_tokens, window - len(prompt.ids))
        if room < min_response_tokens and max(len(response.ids) for response in responses) > room:
            detail = f"the prompt takes {len(prompt.ids)} of {window} tokens, which leaves {room} for a response"
            return RowProblem(pair.id, Reason.CUT_BELOW_MINIMUM, detail)
        ids, foreign = ([getattr(of, part) for of in responses] for part in ("ids", "foreign"))
        return TokenPair.of(pair, prompt.ids, ids, room=room, foreign=foreign)

    def _fit_with_room(
        self, pair: Pair | Unpaired, max_prompt_tokens: int, window: int, min_response_tokens: int
    ) -> RenderedPrompt:
        """Leave out turns until a response of the least length fits; if it never does, until the prompt fits."""
        arguments = json.loads(pair.template_arguments or "{}")
        try:
            return self._fit(pair.prompt, arguments, limit=min(max_prompt_tokens, window - min_response_tokens))
        except RowFaultError as fault:
            if fault.reason is not Reason.PROMPT_TOO_LONG or min_response_tokens <= 1:
                raise
            return self._fit(pair.prompt, arguments, limit=min(max_prompt_tokens, window - 1))

    def _responses(
        self, prompt: RenderedPrompt, responses: Sequence[Message], *, losses: Counter[str]
    ) -> list[ResponseIds]:
        """Ids of each response to one prompt, closed by the end of its turn. What they lose is added to `losses`."""
        self._refuse_control_tokens(responses)
        if all(len(response.turns) == 1 for response in responses):
            return [ResponseIds(ids) for ids in self._single_turns(prompt, responses, losses=losses)]
        return [self._steps(prompt, response.turns, losses=losses) for response in responses]

    def _steps(self, prompt: RenderedPrompt, turns: Sequence[Message], *, losses: Counter[str]) -> ResponseIds:
        """Ids of a response of several messages, rendered one further each time, as it came about. The assistant's own
        are those behind its header up to the end of its turn; what the template writes between is foreign."""
        ids, start, foreign = prompt.ids, len(prompt.ids), list[tuple[int, int]]()
        for n, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            before = (*prompt.messages, *turns[:n])
            text = self.form.prompt(before, multi_turn=True, arguments=prompt.arguments) if n else prompt.text
            so_far = RenderedPrompt(before, True, text, self._encode([text])[0], prompt.arguments)
            if so_far.ids[: len(ids)] != ids:
                detail = f"it writes message {n} of the response otherwise once others follow"
                raise RowFaultError(Reason.TEMPLATE_REFUSED, detail)
            for result in (message for message in turns[:n] if message.role == "tool"):
                if not is_written(result.content, text):
                    raise RowFaultError(Reason.TEXT_LOST, "the template leaves out a tool's result in the response")
            if n:
                foreign.append((len(ids) - start, len(so_far.ids) - start))
            ids = (*so_far.ids, *self._single_turns(so_far, [turn], losses=losses)[0])
        return ResponseIds(ids[start:], tuple(foreign))

    def _single_turns(self, prompt: RenderedPrompt, responses: Sequence[Message], *, losses: Counter[str]) -> list[Ids]:
        continuations = [self._continuation(prompt, response) for response in responses]
        whole = self._encode([prompt.text + continuation for continuation in continuations])
        responses_ids = []
        for ids, continuation, response in zip(whole, continuations, responses, strict=True):
            after = self._after(prompt, ids, continuation)
            losses += self._meter.loss(continuation, after, of=[response.text], subject="a response")
            responses_ids.append(self._with_end(after))
            self._refuse_unknown_ids(responses_ids[-1])
        return responses_ids

    def _continuation(self, prompt: RenderedPrompt, response: Message) -> str:
        """The text of a response and what ends its turn, as the template writes it behind the prompt."""
        text = self.form.exchange(
            prompt.messages, response=response, multi_turn=prompt.multi_turn, arguments=prompt.arguments
        )
        if self.turn_end.text != self.form.ending:
            text = text.removesuffix(self.form.ending) + self.turn_end.text
        continuation = text_behind(prompt.text, text)
        refuse_unwritten(response, continuation, place="the response")
        if not is_within(response.content, continuation):
            detail = "the template leaves out or changes a part of the response (reasoning marks in the text?)"
            raise RowFaultError(Reason.TEXT_LOST, detail)
        return continuation

    def _after(self, prompt: RenderedPrompt, whole: Ids, continuation: str) -> Ids:
        """The part of `whole` behind the prompt.

        Where tokens of prompt and response merge in the joint text, generation could never produce them, so the
        response is tokenised behind a neutral text instead and the result is proved to spell the same.
        """
        if whole[: len(prompt.ids)] == prompt.ids:
            return whole[len(prompt.ids) :]
        text = self.decode(whole)
        for anchor in _ANCHORS:
            before, with_anchor = self._encode([anchor, anchor + continuation])
            ids = with_anchor[len(before) :]
            if with_anchor[: len(before)] == before and self.decode(prompt.ids + ids) == text:
                return ids
        raise RowFaultError(Reason.TEMPLATE_REFUSED, "the response's first token cannot be told from the prompt's last")

    def _with_end(self, ids: Ids) -> Ids:
        return ids[: ids.index(self.end_id) + 1] if self.end_id in ids else (*ids, self.end_id)

    # ---- for a reward model

    @cached_property
    def closing_ids(self) -> Ids:
        """What the template writes behind an answer, from its end of turn on: `<|im_end|>` and a line feed, say.

        Whoever renders a whole conversation sees it to its last token, and there a classifier reads its score. Raises
        ModelError where the template ends an answer otherwise.
        """
        ids = self._encode([self.form.ending])[0] if self.form.ending else ()
        if self.end_id not in ids:
            raise ModelError(
                "the tokenizer has no chat template that ends an answer, so a reward model would be read at another "
                "token than it was trained at",
                remedy="take an instruct model, or put a chat_template.jinja into the model's folder",
            )
        return ids[ids.index(self.end_id) :]

    def close(self, pair: TokenPair) -> TokenPair:
        """The pair with both responses closed as the template does it, a cut one too: scores are read behind that."""

        def closed(ids: Ids, *, cut: bool) -> Ids:
            return (ids if cut else ids[:-1]) + self.closing_ids

        return replace(
            pair,
            chosen_ids=closed(pair.chosen_ids, cut=pair.chosen_cut),
            rejected_ids=closed(pair.rejected_ids, cut=pair.rejected_cut),
        )

    # ---- text and ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids with every special token spelled out."""
        return decode(self.tokenizer, ids)

    def answer_text(self, ids: Sequence[int]) -> str:
        """The text of a sampled answer for people: without special tokens, and without the marks of its end."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip().removesuffix(self.turn_end.marks).rstrip()

    def _encode(self, texts: list[str]) -> list[Ids]:
        encoding = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # lengths are this module's business; the tokenizer would warn about model_max_length
        )
        return [(*self._first_ids, *ids) for ids in encoding["input_ids"]]

    # ---- what must not happen between text and ids

    def _refuse_control_tokens(self, messages: Sequence[Message]) -> None:
        """A message that spells `<|im_end|>` would end a turn that goes on."""
        for message in messages:
            if match := self._control_tokens.search(message.text):
                raise RowFaultError(Reason.CONTROL_TOKEN, f"a message of the {message.role} holds {match[0]!r}")

    @cached_property
    def _meter(self) -> LossMeter:
        return LossMeter(self.tokenizer)

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        return control_tokens(
            self.tokenizer, stop_ids=self.stop_ids, template_frame=self.form.frame + self.turn_end.text
        )

    def _refuse_unknown_ids(self, ids: Ids) -> None:
        """An id without a row in the embedding is an IndexError in the middle of training."""
        if self.embedding_rows is not None and max(ids, default=0) >= self.embedding_rows:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            detail = f"token {token!r} has id {max(ids)}, but the model's embedding has {self.embedding_rows} rows"
            raise RowFaultError(Reason.UNKNOWN_TO_MODEL, detail)

    def _loss_of_prompt(self, prompt: RenderedPrompt) -> Counter[str]:
        for message in prompt.messages:
            # templates leave the reasoning of earlier turns out, in generation as well
            text = message.content.rpartition("</think>")[2] if message.role == "assistant" else message.content
            refuse_unwritten(message, prompt.text, place=f"a message of the {message.role}")
            if not (is_written if message.role == "tool" else is_within)(text, prompt.text):
                detail = f"the template leaves out or changes a part of a message of the {message.role}"
                raise RowFaultError(Reason.TEXT_LOST, detail)
        refuse_unwritten_tools(prompt.arguments.get("tools", []), prompt.text)
        contents = [message.content for message in prompt.messages]
        return self._meter.loss(prompt.text, prompt.ids, of=contents, subject="the prompt")

    @cached_property
    def digest(self) -> str:
        """sha256 of all that turns messages into ids: tokenizer, rendered form, end id, and the ids of a probe."""
        end = {"end_text": self.turn_end.text} if self.turn_end.text not in ("", self.form.ending) else {}
        probe = (Message("user", "Hi, 12 é?\n"), Message("assistant", " Yes. "), Message("user", "Why"))
        return digest(
            {
                "tokenizer": tokenizer_identity(self.tokenizer),
                "form": self.form.identity,
                "first_ids": self._first_ids,
                "end_id": self.end_id,
                **end,
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
