"""Talk to an aligned model, one line a turn. An empty line ends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trimtab.commands.finished import finished_model
from trimtab.data.chat import ChatTemplate
from trimtab.engine import models
from trimtab.progress import printable
from trimtab.records import Message
from trimtab.runtime.model_loading import chat_template
from trimtab.sampling import sample

MAX_NEW_TOKENS = 512  # an answer to read on a screen
MAX_PROMPT_TOKENS = 2048  # older turns are left out beyond


def main(run_folder: str, *, temperature: float = 0.7, system: str | None = None, seed: int = 0) -> None:
    """Read lines from standard input, print the model's answers as they grow; the whole conversation is the prompt.

    `system`: the message before the first line. `temperature` 0 is greedy.
    """
    loaded = models.load(str(finished_model(run_folder)), offline=True)
    template = chat_template(loaded)
    conversation = [] if system is None else [Message("system", system)]
    for turn, line in enumerate(_lines()):
        conversation.append(Message("user", line))
        ids = template.prompt_ids(tuple(conversation), max_prompt_tokens=MAX_PROMPT_TOKENS)
        answer = _GrowingAnswer(template)
        sample(
            loaded.model,
            [ids],
            stop_ids=template.stop_ids,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            seed=seed + turn,
            on_token=answer.add,
        )
        conversation.append(Message("assistant", answer.finish()))


class _GrowingAnswer:
    """Prints an answer token by token. A character of several tokens waits for the last of them."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template, self._ids, self._text = template, list[int](), ""

    def add(self, _index: int, token: int) -> None:
        self._ids.append(token)
        text = self._template.answer_text(self._ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._print(text)

    def finish(self) -> str:
        """The whole answer, after what was left of it and a line end are printed."""
        text = self._template.answer_text(self._ids)
        self._print(text)
        sys.stdout.write("\n")
        sys.stdout.flush()
        return text

    def _print(self, text: str) -> None:
        if text.startswith(self._text):
            sys.stdout.write(printable(text[len(self._text) :], keep_newlines=True))
            sys.stdout.flush()
            self._text = text


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        yield line
