"""Talk to an aligned model, one line a turn. An empty line ends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trimtab.commands.finished import finished_model
from trimtab.engine import models
from trimtab.progress import printable
from trimtab.records import Message
from trimtab.runtime.model_loading import chat_template
from trimtab.sampling import sample

MAX_NEW_TOKENS = 512
MAX_PROMPT_TOKENS = 2048


def main(run_folder: str, *, temperature: float = 0.7, seed: int = 0) -> None:
    """Read lines from standard input, print the model's answers; the whole conversation is the prompt."""
    loaded = models.load(str(finished_model(run_folder)), offline=True)
    template = chat_template(loaded)
    conversation: list[Message] = []
    for turn, line in enumerate(_lines()):
        conversation.append(Message("user", line))
        ids = template.prompt_ids(tuple(conversation), max_prompt_tokens=MAX_PROMPT_TOKENS)
        [answer] = sample(
            loaded.model,
            [ids],
            stop_ids=template.stop_ids,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            seed=seed + turn,
        )
        text = template.answer_text(answer.ids)
        conversation.append(Message("assistant", text))
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        yield line
