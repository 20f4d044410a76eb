"""The configured judge over several answers to each prompt: a score an answer.

Who scores answers one by one (a reward model, a verifier, the embedded world's oracle) is asked for each. Who compares
two is asked for every two answers to a prompt, and an answer's score is the mean of its comparisons, in [0, 1]. Which
of two is shown first is even over a prompt's answers as far as their number allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from trimtab import windtunnel
from trimtab.judging.judges import AnswerScorer, Comparison, Judge, Submission, by_sign
from trimtab.progress import Reporter
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.judges.judge_record import JudgeUsage
from trimtab.runtime.judges.reward_model import RewardJudge
from trimtab.runtime.judges.verifier_judge import VerifierJudge
from trimtab.runtime.prompt_source import SourcePrompt
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import Stop


@dataclass(frozen=True, slots=True)
class Candidates:
    """One prompt and distinct answers to it, at least two."""

    prompt: SourcePrompt
    answers: tuple[str, ...]


Scores = list[list[float | None]]


class AnswerJudge(Protocol):
    """Scores of several answers to each prompt; what has none is None."""

    @property
    def name(self) -> str:
        """As numbers name it: with version, rubric and order; `nobody` where nothing was compared yet."""

    def scores(self, candidates: Sequence[Candidates], /) -> Scores:
        """A score for every answer, in their order. Says first what that will take."""

    def preference(self, baseline: float, model: float, /) -> float:
        """A verdict in [1, 2] of the scores of two answers that were `candidates` together."""

    def usage(self) -> JudgeUsage | None:
        """What it took so far; None where it costs nothing."""


@contextmanager
def answer_judge(setup: RunSetup, *, reporter: Reporter, stop: Stop) -> Iterator[AnswerJudge]:
    """The configured judge over the verdict cache of all runs."""
    if setup.config.judge.kind == "oracle":
        yield _Oracle()
        return
    with judge_setup.configured_judge(setup, reporter=reporter, stop=stop) as source:
        if setup.config.judge.kind == "openai":
            yield _PairJudge(source)
        else:
            judge = source.judge(None)
            assert isinstance(judge, RewardJudge | VerifierJudge)
            yield _ScoreJudge(judge, source)


def comparisons_of(candidates: Sequence[Candidates]) -> list[list[Comparison]]:
    """Every two answers of each prompt. The even one of two places goes first where their sum is odd, the later
    otherwise, which evens out who is shown first."""
    return [
        [
            Comparison(f"{item.prompt.id} ({a + 1}, {b + 1})", _text(item.prompt), item.answers[a], item.answers[b])
            for a, b in _orders(len(item.answers))
        ]
        for item in candidates
    ]


def _orders(n: int) -> list[tuple[int, int]]:
    return [(a, b) if (a + b) % 2 else (b, a) for a, b in combinations(range(n), 2)]


def _text(prompt: SourcePrompt) -> str:
    return Submission(prompt.messages, "").text


@dataclass(slots=True)
class _PairJudge:
    source: judge_setup.JudgeSource
    _judge: Judge | None = None

    @property
    def name(self) -> str:
        return "nobody" if self._judge is None else self.source.identity(self._judge).label

    def scores(self, candidates: Sequence[Candidates], /) -> Scores:
        by_prompt = comparisons_of(candidates)
        comparisons = [comparison for group in by_prompt for comparison in group]
        self._judge = self._judge or self.source.judge(next(iter(comparisons), None))
        self.source.announce(self._judge, comparisons)
        preferences = iter(self._judge.preferences(comparisons))
        scores = [
            _means(len(item.answers), [next(preferences) for _ in _orders(len(item.answers))]) for item in candidates
        ]
        self.source.check_position(self._judge, comparisons)
        return scores

    def preference(self, baseline: float, model: float, /) -> float:  # noqa: ARG002  the two add up to 1
        return 1 + model

    def usage(self) -> JudgeUsage | None:
        return None if self._judge is None else self.source.usage(self._judge)


def _means(n: int, preferences: Sequence[float | None]) -> list[float | None]:
    """Of each answer's comparisons; None where one of them has no verdict."""
    shares: list[list[float]] = [[] for _ in range(n)]
    for (first, second), preference in zip(_orders(n), preferences, strict=True):
        share = math.nan if preference is None else preference - 1
        shares[first].append(1 - share)
        shares[second].append(share)
    means = [math.fsum(shares_of) / len(shares_of) for shares_of in shares]
    return [None if math.isnan(mean) else mean for mean in means]


@dataclass(frozen=True, slots=True)
class _ScoreJudge:
    judge: RewardJudge | VerifierJudge
    source: judge_setup.JudgeSource

    @property
    def name(self) -> str:
        return self.source.identity(self.judge).label

    def scores(self, candidates: Sequence[Candidates], /) -> Scores:
        scorer: AnswerScorer = self.judge
        flat = iter(scorer.scores([item.prompt.submission(text) for item in candidates for text in item.answers]))
        return [[next(flat) for _ in item.answers] for item in candidates]

    def preference(self, baseline: float, model: float, /) -> float:
        return self.judge.preference(baseline, model)

    def usage(self) -> JudgeUsage:
        return self.judge.usage()


@dataclass(frozen=True, slots=True)
class _Oracle:
    """The embedded world's truth."""

    name: str = "oracle"

    def scores(self, candidates: Sequence[Candidates], /) -> Scores:
        return [[self._score(item.prompt, text) for text in item.answers] for item in candidates]

    def preference(self, baseline: float, model: float, /) -> float:
        return by_sign(baseline, model)

    def usage(self) -> None:
        """Nothing is paid for the truth."""

    def _score(self, prompt: SourcePrompt, text: str) -> float:
        assert prompt.task is not None, "the oracle knows the embedded world alone"
        return windtunnel.score(prompt.task, text).total
