"""What judging a run would take: calls, tokens, money and time; nothing is asked and nothing is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab.config import Config
from trimtab.errors import ConfigError
from trimtab.judging import official
from trimtab.judging.answer_files import TurnAnswers, read_model_answers
from trimtab.judging.mt_bench_grading import gradings
from trimtab.judging.questions import CallEstimate, Question
from trimtab.progress import SilentReporter, duration
from trimtab.records import Answer
from trimtab.runtime.judges import grading, judge_setup, pairwise
from trimtab.runtime.judges.cached_endpoint import CachedEndpoint, cached_endpoint
from trimtab.runtime.run_setup import RunSetup, set_up
from trimtab.runtime.signals import Stop

CHARACTERS_A_TOKEN = 4  # for answers that are not there yet
ASSUMPTION = "note: there are no answers yet; each is taken to be as long as may be sampled"


@dataclass(frozen=True, slots=True)
class JudgingPlan:
    """`is_assumed`: some answers are not there yet and taken to be as long as may be. `max_cost` is in US dollars."""

    judge: str
    base_url: str
    benchmark: str
    is_assumed: bool
    max_cost: float | None
    estimate: CallEstimate

    def to_json(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "base_url": self.base_url,
            "benchmark": self.benchmark,
            "answers": "assumed" if self.is_assumed else "read",
            "max_cost": self.max_cost,
        } | asdict(self.estimate)


def main(config: Config) -> JudgingPlan:
    """Calls, tokens, cost and time of judging every seed. Raises ConfigError for a judge that costs no calls."""
    setup = set_up(config)
    name = setup.benchmark_name
    if config.judge.kind != "openai" or name is None:
        raise ConfigError(
            f"--dry-run: the judge is {config.judge.name}, which costs no calls",
            remedy="it estimates --judge openai:MODEL",
        )
    with cached_endpoint(config, reporter=SilentReporter(), stop=Stop()) as endpoint:
        by_run = [_questions(single, endpoint) for single in setup.each_seed()]
        return JudgingPlan(
            judge=config.judge.name,
            base_url=endpoint.endpoint.base_url,
            benchmark=name,
            is_assumed=any(is_assumed for _, is_assumed in by_run),
            max_cost=config.judge.max_cost,
            estimate=endpoint.estimate([question for questions, _ in by_run for question in questions]),
        )


def lines(plan: JudgingPlan) -> list[str]:
    """The estimate for a terminal."""
    return [
        f"judge   {plan.judge} at {plan.base_url}, benchmark {plan.benchmark}",
        *estimate_lines(plan.estimate),
        *([ASSUMPTION] if plan.is_assumed else []),
    ]


def estimate_lines(estimate: CallEstimate) -> list[str]:
    """What the calls take, for a terminal."""
    cost = "unknown (give --input-price and --output-price)"
    if estimate.cost_usd is not None:
        cost = f"{estimate.cost_usd:.2f}"
    time = "unknown until this judge has been asked" if estimate.seconds is None else duration(estimate.seconds)
    return [
        f"calls   {estimate.n_calls:,} to make, {estimate.n_cached:,} verdicts kept from before",
        f"tokens  about {estimate.prompt_tokens:,} in, at most {estimate.completion_tokens_at_most:,} out",
        f"cost    US dollars, at most: {cost}",
        f"time    {time}",
    ]


def _questions(setup: RunSetup, endpoint: CachedEndpoint) -> tuple[list[Question], bool]:
    """Everything that the judge would be asked about one run, and whether its answers are assumed."""
    prompts, name, config, folder = setup.benchmark, setup.benchmark_name, setup.config, setup.folder
    assert name is not None
    text = "x" * CHARACTERS_A_TOKEN * config.generate.max_new_tokens
    if prompts.multi_turn:
        files = folder.answers(name, turns=True), folder.unaligned_answers(name, turns=True)
        return _grading_questions(setup, *files, text)
    is_assumed = not folder.answers(name).is_file()
    if is_assumed:
        baseline, sides = _assumed_answers(setup, text)
    else:
        baseline, answers_of = pairwise.answers(folder, name)
        sides = list(answers_of.values())
    judge = judge_setup.endpoint_judge(setup, endpoint)
    return judge.questions(pairwise.comparisons(baseline, sides, n_canaries=config.judge.canaries)), is_assumed


def _assumed_answers(setup: RunSetup, text: str) -> tuple[list[Answer], list[list[Answer]]]:
    prompts = setup.benchmark

    def answers(output: str, generator: str) -> list[Answer]:
        return [Answer(prompt.id, prompt.instruction, output, generator, prompt.dataset) for prompt in prompts.prompts]

    aligned, unaligned = answers(text, "aligned"), answers(text + ".", "unaligned")
    if not prompts.has_baseline:
        return unaligned, [aligned]
    baseline = [prompt.baseline_answer() for prompt in prompts.prompts]
    return baseline, [aligned, unaligned] if setup.config.benchmark.unaligned == "on" else [aligned]


def _grading_questions(setup: RunSetup, aligned: Path, unaligned: Path, text: str) -> tuple[list[Question], bool]:
    questions, config = setup.benchmark, setup.config
    prompts = official.judge_prompts(source=setup.texts)
    if is_assumed := not aligned.is_file():
        models = ["aligned", "unaligned"] if config.benchmark.unaligned == "on" else ["aligned"]
        answers = [
            TurnAnswers(question.id, (text,) * len(question.turns), model)
            for model in models
            for question in questions.prompts
        ]
    else:
        files = [path for path in (aligned, unaligned) if path.is_file()]
        answers = [
            answer for path in files for answer in read_model_answers(path, benchmark=questions, allow_missing=True)
        ]
    canaries = grading.canary_gradings(questions, prompts, n=config.judge.canaries)
    to_grade = (*gradings(questions, answers, prompts), *canaries)
    return [grading.question(item) for item in to_grade], is_assumed
