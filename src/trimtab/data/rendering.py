"""The two forms in which a conversation becomes text: a tokenizer's chat template, and the plain documented form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.data import template_limits
from trimtab.data.problems import Reason, RowFaultError
from trimtab.errors import ModelError
from trimtab.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Marks that no template trims, folds or translates; they only ever pass through the probes below.
USER_MARK, SYSTEM_MARK, ASSISTANT_MARK, NEXT_MARK = "Zq-user-Zq", "Zq-system-Zq", "Zq-assistant-Zq", "Zq-next-Zq"
# Preference data holds answers, not reasoning: templates that can switch reasoning off (Qwen3, SmolLM3) put the empty
# reasoning block into the prompt. `date_string` is what Llama 3.x asks for before it looks at the clock.
DEFAULT_VARIABLES: Mapping[str, object] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
# Some templates print today's date. Tokens that change overnight could not be cached, resumed or compared, so the
# clock is stopped by a macro of the same name in front of the template.
_STOPPED_CLOCK = (
    "{%- macro strftime_now(form) -%}{{- form | replace('%d', '26') | replace('%e', '26') | replace('%b', 'Jul')"
    " | replace('%B', 'July') | replace('%m', '07') | replace('%Y', '2024') | replace('%y', '24')"
    " | replace('%A', 'Friday') | replace('%a', 'Fri') -}}{%- endmacro %}"
)


Arguments = Mapping[str, Any]
NO_ARGUMENTS: Arguments = {}


class Form(Protocol):
    """How messages become text. `multi_turn`: whether the whole prompt, before any cut, had more than one message."""

    @property
    def ending(self) -> str:
        """What the form writes behind a last response; it holds the end-of-turn token, if the form writes one there."""

    @property
    def between(self) -> str:
        """What the form writes between a response and the question that follows it."""

    @property
    def frame(self) -> str:
        """Some of what the form writes around messages, for a look at the marks in it."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the text, as JSON."""

    def prompt(self, messages: Sequence[Message], *, multi_turn: bool, arguments: Arguments = NO_ARGUMENTS) -> str:
        """Text of a prompt up to where the assistant's response starts. Raises `RowFaultError` when it is refused.

        `arguments`: `tools`, and variables of the template, for this conversation alone.
        """

    def exchange(
        self,
        messages: Sequence[Message],
        *,
        response: Message,
        multi_turn: bool,
        arguments: Arguments = NO_ARGUMENTS,
    ) -> str:
        """Text of the prompt, the response and the closing."""


@dataclass(frozen=True, slots=True)
class PlainForm:
    """For tokenizers without a chat template; see the module docstring of `chat`."""

    ending: str = ""
    between: str = ""
    frame: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        return {"plain": 1}

    def prompt(self, messages: Sequence[Message], *, multi_turn: bool, arguments: Arguments = NO_ARGUMENTS) -> str:
        if arguments or any(message.extras for message in messages):
            raise RowFaultError(Reason.TEMPLATE_REFUSED, "without a chat template nothing writes tools and calls")
        if not multi_turn:
            (message,) = messages
            return message.content if message.content[-1:].isspace() else message.content + "\n"
        turns = [
            message.content if message.role == "system" else f"{message.role.capitalize()}: {message.content}"
            for message in messages
        ]
        return "\n\n".join([*turns, "Assistant:"])

    def exchange(
        self,
        messages: Sequence[Message],
        *,
        response: Message,
        multi_turn: bool,
        arguments: Arguments = NO_ARGUMENTS,
    ) -> str:
        if response.extras:
            raise RowFaultError(Reason.TEMPLATE_REFUSED, "without a chat template nothing writes tools and calls")
        prompt = self.prompt(messages, multi_turn=multi_turn, arguments=arguments)
        return prompt + (" " if multi_turn else "") + response.content


@dataclass(frozen=True, slots=True)
class TemplateForm:
    """A tokenizer's chat template, rendered by its own sandboxed `apply_chat_template` with a stopped clock."""

    tokenizer: PreTrainedTokenizerBase
    text: str
    variables: Mapping[str, object]
    header: str = ""
    folds_system: bool = False
    ending: str = ""
    between: str = ""
    frame: str = ""

    @classmethod
    def probe(cls, tokenizer: PreTrainedTokenizerBase, *, variables: Mapping[str, object]) -> TemplateForm:
        """Learn from a few short renderings what the template writes around a message.

        Raises `ModelError` when it cannot render one exchange or does not begin an answer where its prompt ends.
        """
        form = cls(tokenizer, _template_text(tokenizer), variables)
        if fault := template_limits.refusal(form.text):
            raise _unusable(fault)
        user = [Message("user", USER_MARK)]
        try:
            prompt = form.prompt(user, multi_turn=False)
            whole = form.exchange(user, response=Message("assistant", ASSISTANT_MARK), multi_turn=False)
        except RowFaultError as refusal:
            raise _unusable(f"it does not render a question and its answer: {refusal.detail}") from None
        before, mark, ending = whole.partition(ASSISTANT_MARK)
        if not mark or USER_MARK not in prompt:
            raise _unusable("the text of a message does not appear in what it renders")
        if not before.startswith(prompt.rstrip()):
            raise _unusable("an answer does not follow the prompt that it renders for generation")
        header = ""
        if form._render(user, header=False) == prompt and before.rstrip() != prompt.rstrip():
            # The template ignores add_generation_prompt: the header is what it writes before an answer.
            header = before.removeprefix(prompt).rstrip(" ")
        with_system = form._attempt([Message("system", SYSTEM_MARK), *user])
        with_next = form._attempt([*user, Message("assistant", ASSISTANT_MARK), Message("user", NEXT_MARK)])
        return replace(
            form,
            header=header,
            ending=ending,
            between=with_next.partition(ASSISTANT_MARK)[2].partition(NEXT_MARK)[0] if NEXT_MARK in with_next else "",
            folds_system=SYSTEM_MARK not in with_system or USER_MARK not in with_system,
            frame=prompt + whole + with_system + with_next,
        )

    @property
    def identity(self) -> dict[str, Any]:
        variables = {name: str(value) for name, value in self.variables.items()}
        return {"text": self.text, "header": self.header, "folds_system": self.folds_system, "variables": variables}

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        multi_turn: bool,  # noqa: ARG002  # the protocol's parameter
        arguments: Arguments = NO_ARGUMENTS,
    ) -> str:
        return self._render(self._fold_system(messages), header=True, arguments=arguments) + self.header

    def exchange(
        self,
        messages: Sequence[Message],
        *,
        response: Message,
        multi_turn: bool,  # noqa: ARG002  # as above
        arguments: Arguments = NO_ARGUMENTS,
    ) -> str:
        return self._render([*self._fold_system(messages), response], header=False, arguments=arguments)

    def _fold_system(self, messages: Sequence[Message]) -> list[Message]:
        if not self.folds_system or messages[0].role != "system" or len(messages) == 1:
            return list(messages)
        system, first, *later = messages
        return [replace(first, content=f"{system.content}\n\n{first.content}"), *later]

    def _attempt(self, messages: Sequence[Message]) -> str:
        """The text of a conversation, or nothing where the template refuses it."""
        try:
            return self._render(messages, header=True)
        except RowFaultError:
            return ""

    def _render(self, messages: Sequence[Message], *, header: bool, arguments: Arguments = NO_ARGUMENTS) -> str:
        n_characters = sum(len(message.text) for message in messages) + len(str(arguments))
        try:
            with template_limits.limits(n_characters) as outputs:
                text: str = self.tokenizer.apply_chat_template(
                    [message.to_json() for message in messages],
                    chat_template=self.text,
                    add_generation_prompt=header,
                    tokenize=False,
                    **{**self.variables, **arguments},
                )
                outputs.append(text)
        except Exception as error:  # a program that somebody else wrote speaks here, with any error there is
            raise RowFaultError(
                Reason.TEMPLATE_REFUSED, str(error).splitlines()[0] if str(error) else repr(error)
            ) from None
        return text


def _template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        text: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise _unusable(str(error).splitlines()[0]) from None
    return _STOPPED_CLOCK + text if "strftime_now" in text else text


def _unusable(fault: str) -> ModelError:
    return ModelError(
        f"the tokenizer's chat template cannot be used for training: {fault}",
        remedy="correct chat_template.jinja in the model's folder, or remove it to train on plain text",
    )
