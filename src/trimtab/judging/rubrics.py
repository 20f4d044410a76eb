"""How a judge is asked which of two answers is better, and how its reply is read: AlpacaEval's two published ways.

The prompts are read at run time (`official.rubric`); only what to do with them is here. A preference is in the order in
which the answers were SHOWN: 1 = the first wins, 2 = the second wins; `unswitched` turns it into baseline against
model. None = no verdict, never a score.

Two deviations from AlpacaEval 0.6.6, on purpose: an instruction or answer that contains `{output_1}` or the marks of
ChatML is shown as it is (there it is filled in, or cuts the prompt), and a letter is also read with the leading space
that other servers' tokenizers write, where that changes nothing in the published judgments.
"""

from __future__ import annotations

import ast
import hashlib
import math
import random
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never, cast, get_args

from trimtab.endpoint import Reply, Request
from trimtab.errors import DataError, RunError
from trimtab.records import Message, Role

RubricName = Literal["weighted", "chosen", "ranking"]

_PLACEHOLDER = re.compile(r"\{(instruction|output_1|output_2)\}")
_MESSAGE = re.compile(r"<\|im_start\|>(?P<role>[^\n]*)\n(?P<content>.*?)<\|im_end\|>", re.DOTALL)
_SPACES_OF_TOKENIZERS = (" ", "Ġ", "▁")
_AROUND_A_LETTER = " \t\r\n.\"'`“”‘’"
_ABSENT = -9999.0  # vLLM's word for a token without a log-prob
_MAX_RANKING = 2_000  # characters; a ranking of two takes about 80


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
            Message(role, _PLACEHOLDER.sub(lambda found: texts[found[1]], content).strip())
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

        Raises NoLogProbsError when a weighted verdict was asked for and the server sends none at all.
        """
        match self.name:
            case "weighted":
                if not reply.logprobs:
                    raise NoLogProbsError(
                        f"{reply.model} sends no log-probs, which the weighted verdict is made of",
                        remedy="judge with --judge.rubric chosen: the letter that the judge answers counts",
                    )
                return read_weighted(reply.logprobs[0])
            case "chosen":
                return read_chosen(reply.text)
            case "ranking":
                return read_ranking(reply.text)
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


def read_weighted(log_probs: Mapping[str, float]) -> float | None:
    """2 − p(m) / (p(m) + p(M)) from the first token's log-probs (nats); the letter m names the first answer.

    A letter that is not among them has probability 0; None when neither is. A letter counts by its bare token, as
    published; by all its tokens together, those with a leading space too, where it has no bare one or where the
    likeliest of all has a space, which is how that tokenizer begins an answer.
    """
    tokens = {letter: _spelled(log_probs, letter) for letter in ("m", "M")}
    known = tokens["m"] | tokens["M"]
    if not known:
        return None
    bare = max(known, key=known.__getitem__) in tokens
    first, second = (
        told[letter] if bare and letter in told else _log_sum(told.values()) for letter, told in tokens.items()
    )
    return 2 - 1 / (1 + math.exp(min(second - first, 700.0)))


def read_chosen(text: str) -> float | None:
    """The letter m or M by itself, perhaps quoted; anything else is no verdict."""
    return {"m": 1.0, "M": 2.0}.get(text.strip(_AROUND_A_LETTER))


def read_ranking(text: str) -> float | None:
    """A Python list of {'model', 'rank'} for model_1 and model_2 with ranks 1 and 2; equal ranks are a tie (1.5).

    AlpacaEval looks at the rank of model_1 alone and so calls a tie for 1 a win; the list must be whole here.
    """
    if len(text) > _MAX_RANKING:
        return None
    try:
        with warnings.catch_warnings():  # odd literals are no verdict, and no news
            warnings.simplefilter("ignore")
            rows = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(rows, list) or len(rows) != 2 or not all(isinstance(row, dict) for row in rows):
        return None
    ranks = {row.get("model"): _rank(row.get("rank")) for row in rows if isinstance(row.get("model"), str)}
    first, second = ranks.get("model_1"), ranks.get("model_2")
    if first is None or second is None:
        return None
    return 1.5 if first == second else float(first)


def _rank(value: Any) -> int | None:
    if isinstance(value, str) and value in {"1", "2"}:
        return int(value)
    return value if type(value) is int and value in {1, 2} else None


def _spelled(log_probs: Mapping[str, float], letter: str) -> dict[str, float]:
    """The tokens that are this letter, bare or with a leading space; what is not a log-prob counts as absent."""
    spelled = {letter, *(space + letter for space in _SPACES_OF_TOKENIZERS)}
    return {token: value for token, value in log_probs.items() if token in spelled and _ABSENT < value <= 1e-3}


def _log_sum(values: Collection[float]) -> float:
    """ln Σ exp, −∞ for nothing."""
    top = max(values, default=-math.inf)
    return top + math.log(sum(math.exp(value - top) for value in values)) if values else top


def _chat(template: str) -> list[tuple[Role, str]]:
    return [(cast(Role, found["role"].strip()), found["content"]) for found in _MESSAGE.finditer(template)]
