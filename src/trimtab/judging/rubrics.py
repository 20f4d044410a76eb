"""How a judge is asked which of two answers is better: AlpacaEval's two published ways.

The prompts are read at run time (`official.rubric`); only what to do with them is here, and how a reply is read stands
in `verdict_reading`. A preference is in the order in
which the answers were SHOWN: 1 = the first wins, 2 = the second wins; `unswitched` turns it into baseline against
model. None = no verdict, never a score.

Two deviations from AlpacaEval 0.6.6, on purpose: an instruction or answer that contains `{output_1}` or the marks of
ChatML is shown as it is (there it is filled in, or cuts the prompt), and a letter is also read with the leading space
that other servers' tokenizers write, where that changes nothing in the published judgments.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Literal, assert_never, cast, get_args

from trimtab.endpoint import Reply, Request
from trimtab.errors import DataError, RunError
from trimtab.judging.verdict_reading import read_chosen, read_ranking, read_weighted
from trimtab.records import Message, Role

RubricName = Literal["weighted", "chosen", "ranking"]

_PLACEHOLDER = re.compile(r"\{(instruction|output_1|output_2)\}")
_MESSAGE = re.compile(r"<\|im_start\|>(?P<role>[^\n]*)\n(?P<content>.*?)<\|im_end\|>", re.DOTALL)


class NoLogProbsError(RunError):
    """The server sends no log-probs, so a weighted verdict cannot be read."""


@dataclass(frozen=True, slots=True)
class Rubric:
    """One way of asking. Nothing here depends on who is asked.

    weighted  AlpacaEval 2's prompt; the log-probs of its two letters are the verdict
    chosen    the same prompt; the letter that was answered is the verdict: for servers without log-probs
    ranking   AlpacaEval 1's prompt; a Python list of two ranks is the verdict
    """

    name: RubricName
    template: str
    max_tokens: int
    temperature: float
    top_logprobs: int | None = None

    @property
    def prompt_sha256(self) -> str:
        """Of the prompt as UTF-8, which is that of its official file."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def messages(self, instruction: str, *, first: str, second: str) -> tuple[Message, ...]:
        """The judge's prompt with the two answers in this order."""
        texts = {"instruction": instruction, "output_1": first, "output_2": second}
        return tuple(
            Message(role, _PLACEHOLDER.sub(lambda match: texts[match[1]], content).strip())
            for role, content in _chat(self.template)
        )

    def request(self, id: str, instruction: str, *, first: str, second: str) -> Request:
        """The whole question, with the published settings."""
        return Request(
            id=id,
            messages=self.messages(instruction, first=first, second=second),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_logprobs=self.top_logprobs,
        )

    def parse(self, reply: Reply) -> float | None:
        """Preference in [1, 2] in the order shown; None where the reply is no verdict.

        Raises NoLogProbsError when a weighted verdict was asked for and a reply with text comes without any.
        """
        is_cut = reply.ending == "cut"
        if not reply.text or reply.ending in {"refused", "tool call"}:
            return None
        match self.name:
            case "weighted":  # one token is asked for: that it is cut is no sign
                if not reply.logprobs:
                    raise NoLogProbsError(
                        f"{reply.model} sends no log-probs, which the weighted verdict is made of",
                        remedy="judge with --judge.rubric chosen: the letter that the judge answers counts",
                    )
                return read_weighted(reply)
            case "chosen":
                return read_chosen(reply.answer, is_cut=is_cut)
            case "ranking":
                return None if is_cut else read_ranking(reply.answer)
            case _:
                assert_never(self.name)

    def without_log_probs(self) -> Rubric:
        """The `chosen` rubric of the same prompt."""
        assert self.name == "weighted", "only this one reads log-probs"
        return make("chosen", self.template)


def make(name: RubricName, prompt: str) -> Rubric:
    """The rubric of an official prompt, a ChatML text. Raises DataError for a text that is none or lacks a place.

    `chosen` asks at temperature 0 for a few tokens, so that a quoted letter fits; the other settings are published.
    """
    roles = [role for role, _ in _chat(prompt)]
    if not roles or any(role not in get_args(Role) for role in roles):
        raise DataError(
            "the judge's prompt is not ChatML with roles system, user or assistant", remedy="give the official file"
        )
    places = _PLACEHOLDER.findall(prompt)
    for place in ("instruction", "output_1", "output_2"):
        if places.count(place) != 1:
            raise DataError(
                f"the judge's prompt has {places.count(place)} places {{{place}}}, not one",
                remedy="give the official file",
            )
    match name:
        case "weighted":
            return Rubric(name, prompt, max_tokens=1, temperature=1.0, top_logprobs=5)
        case "chosen":
            return Rubric(name, prompt, max_tokens=8, temperature=0.0)
        case "ranking":
            return Rubric(name, prompt, max_tokens=100, temperature=0.0)
        case _:
            assert_never(name)


def is_switched(instruction: str, *, seed: int = 0) -> bool:
    """Whether AlpacaEval shows the model's answer first: a coin tossed with the instruction (0.6.6, the default seed).

    The same 406 of its 805 instructions are switched for every model and judge.
    """
    coin = random.Random(f"is_switched_outputs{instruction}{seed}")  # noqa: S311  # published, not secret
    return coin.choices([False, True], k=1)[0]


def unswitched(preference: float | None, *, switched: bool) -> float | None:
    """A preference in the order shown as baseline (1) against model (2)."""
    return 3 - preference if switched and preference is not None else preference


def _chat(template: str) -> list[tuple[Role, str]]:
    return [(cast(Role, match["role"].strip()), match["content"]) for match in _MESSAGE.finditer(template)]
