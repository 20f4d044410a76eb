"""Pairs from a model's own answers: sampled, ranked by the configured judge, put together by a rule.

Every prompt ends in at least one pair or under one reason, and every answer is kept, a repetition of another, empty,
cut at the limit (a pair's response would end where the model had not) or without a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab.config import Config
from trimtab.data.pair_rules import LENGTH_RATIO, Rule, pairs_by_rule
from trimtab.endpoint import Endpoint
from trimtab.progress import Reporter
from trimtab.runtime.answer_judges import Candidates, answer_judge
from trimtab.runtime.answering import TurnAnswer, answer_turns
from trimtab.runtime.judges.judge_record import JudgeUsage
from trimtab.runtime.prompt_source import SourcePrompt
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import stop_on_signal

TEMPERATURE = 1.0  # where the configuration has none: answers that differ are the point


@dataclass(frozen=True, slots=True)
class PairingOptions:
    """How many answers are sampled a prompt, and which of them make pairs (`data.pair_rules`)."""

    samples: int = 4
    rule: Rule = "best_worst"
    min_gap: float = 0.0
    length_matched: bool = False


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """Two answers to a prompt, with the judge's scores of them."""

    prompt: SourcePrompt
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float

    def row(self, *, judge: str) -> dict[str, Any]:
        """As `trimtab audit` and TRL read it, with the score columns of UltraFeedback's published pairs."""
        return {
            "prompt": [message.to_json() for message in self.prompt.messages],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "score_chosen": self.score_chosen,
            "score_rejected": self.score_rejected,
            "prompt_id": self.prompt.id,
            "judge": judge,
        }


@dataclass(frozen=True, slots=True)
class SampledPairs:
    """The pairs, and the account of prompts, answers and candidates that gave none. `usage`: what judging took."""

    pairs: tuple[JudgedPair, ...]
    judge: str
    n_prompts: int
    n_answers: int
    prompts_without: Counter[str]
    answers_dropped: Counter[str]
    n_ties: int
    n_unmatched: int
    usage: JudgeUsage | None

    @property
    def n_paired_prompts(self) -> int:
        return self.n_prompts - self.prompts_without.total()

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": len(self.pairs),
            "judge": self.judge,
            "prompts": {
                "sampled": self.n_prompts,
                "with_pairs": self.n_paired_prompts,
                "without_pairs": dict(self.prompts_without.most_common()),
            },
            "answers": {"sampled": self.n_answers, "dropped": dict(self.answers_dropped.most_common())},
            "ties": self.n_ties,
            "unlike_in_length": self.n_unmatched,
            "usage": None if self.usage is None else asdict(self.usage),
        }

    def lines(self) -> list[str]:
        """The account, a sentence a line."""
        lines = [
            f"{len(self.pairs):,} pairs of {self.n_paired_prompts:,} of {self.n_prompts:,} prompts, "
            f"ranked by {self.judge}",
            *(f"  {n:,} prompts without a pair: {reason}" for reason, n in self.prompts_without.most_common()),
            *(
                f"  {n:,} of {self.n_answers:,} answers left out: {why}"
                for why, n in self.answers_dropped.most_common()
            ),
        ]
        if self.n_ties:
            lines.append(f"  {self.n_ties:,} candidates were ties")
        if self.n_unmatched:
            lines.append(f"  {self.n_unmatched:,} candidates were not alike in length")
        if self.usage is not None and self.usage.reasons:
            lines.append(f"  no verdict: {self.usage.reasons}")
        return lines


def sampled_answers(
    setup: RunSetup,
    folder: Path | None,
    prompts: Sequence[SourcePrompt],
    *,
    samples: int,
    reporter: Reporter,
    description: str,
    temperature: float | None = None,
) -> list[list[TurnAnswer]]:
    """`samples` answers to each prompt by the model in `folder`, or served under `generate.served_as`.

    A prompt that a server did not answer every time has fewer. temperature: in place of the configured one.
    """
    decoding = setup.config.generate
    heat = temperature if temperature is not None else heat_of(setup.config)
    questions = [prompt for prompt in prompts for _ in range(samples)]
    answers = answer_turns(
        folder,
        [(prompt.messages[-1].content,) for prompt in questions],
        temperatures=[heat] * len(questions),
        decoding=decoding,
        setup=setup,
        reporter=reporter,
        description=description,
        endpoint=_server(setup),
        contexts={n: prompt.messages[:-1] for n, prompt in enumerate(questions) if len(prompt.messages) > 1},
    )
    return [
        [turn for turns in answers[start : start + samples] for turn in turns]
        for start in range(0, len(questions), samples)
    ]


def heat_of(config: Config) -> float:
    """The temperature at which answers to be ranked are sampled."""
    return TEMPERATURE if config.generate.temperature is None else config.generate.temperature


def _server(setup: RunSetup) -> Endpoint | None:
    decoding = setup.config.generate
    if decoding.sampler == "local":
        return None
    assert decoding.served_as is not None, "config.rules asks for it"
    return Endpoint(decoding.served_as, base_url=decoding.base_url or setup.config.base_url)


def judged_pairs(
    setup: RunSetup,
    prompts: Sequence[SourcePrompt],
    answers: Sequence[Sequence[TurnAnswer]],
    *,
    options: PairingOptions,
    reporter: Reporter,
) -> SampledPairs:
    """The pairs that the judge's scores make of the answers. Raises what asking the judge raises, after everything
    that was answered is kept."""
    losses, without = Counter[str](), Counter[str]()
    candidates: list[Candidates] = []
    for prompt, of_prompt in zip(prompts, answers, strict=True):
        texts = distinct_answers(of_prompt, losses)
        losses["not answered"] += options.samples - len(of_prompt)
        if len(texts) > 1:
            candidates.append(Candidates(prompt, texts))
        else:
            without["fewer than two different answers"] += 1
    with stop_on_signal() as stop, answer_judge(setup, reporter=reporter, stop=stop) as judge:
        scores = judge.scores(candidates)
        usage = judge.usage()
        name = judge.name
    pairs: list[JudgedPair] = []
    n_ties = n_unmatched = 0
    for item, item_scores in zip(candidates, scores, strict=True):
        scored_texts = [
            (text, score) for text, score in zip(item.answers, item_scores, strict=True) if score is not None
        ]
        losses["no score"] += len(item_scores) - len(scored_texts)
        prompt_pairs, ties, unlike = _pairs_of(item.prompt, scored_texts, options)
        pairs += prompt_pairs
        n_ties, n_unmatched = n_ties + ties, n_unmatched + unlike
        if not prompt_pairs:
            without[_reason(len(scored_texts), ties)] += 1
    return SampledPairs(
        pairs=tuple(pairs),
        judge=name,
        n_prompts=len(prompts),
        n_answers=options.samples * len(prompts),
        prompts_without=+without,
        answers_dropped=+losses,
        n_ties=n_ties,
        n_unmatched=n_unmatched,
        usage=usage,
    )


def distinct_answers(answers: Sequence[TurnAnswer], losses: Counter[str]) -> tuple[str, ...]:
    """The different texts, in their order; white space at the edges makes no difference."""
    texts: dict[str, str] = {}
    for answer in answers:
        if not answer.finished:
            losses["cut at generate.max_new_tokens"] += 1
        elif not answer.text.strip():
            losses["empty"] += 1
        elif texts.setdefault(answer.text.strip(), answer.text) is not answer.text:
            losses["the same as another one"] += 1
    return tuple(texts.values())


def _pairs_of(
    prompt: SourcePrompt, answers: Sequence[tuple[str, float]], options: PairingOptions
) -> tuple[list[JudgedPair], int, int]:
    """The pairs of one prompt, and its ties and candidates unlike in length."""

    def alike(better: int, worse: int) -> bool:
        lengths = sorted(len(answers[place][0]) for place in (better, worse))
        return not options.length_matched or lengths[1] <= LENGTH_RATIO * lengths[0]

    scores = [score for _, score in answers]
    result = pairs_by_rule(scores, rule=options.rule, least_gap=options.min_gap, is_allowed=alike)
    pairs = [
        JudgedPair(prompt, answers[better][0], answers[worse][0], scores[better], scores[worse])
        for better, worse in result.places
    ]
    return pairs, result.n_ties, result.n_unmatched


def _reason(n_ranked: int, n_ties: int) -> str:
    """Why a prompt with different answers has no pair."""
    if n_ranked < 2:
        return "fewer than two answers with a score"
    return "its answers tie" if n_ties else "no two answers alike in length"
