"""What judging a run would take: calls, tokens, money and time; nothing is asked and nothing is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab.config import Config
from trimtab.errors import ConfigError
from trimtab.judging import official
from trimtab.judging.answer_files import TurnAnswers, read_model_answers
from trimtab.judging.benchmarks import Benchmark
from trimtab.judging.mt_bench_grading import gradings
from trimtab.judging.questions import CallEstimate, Question
from trimtab.progress import SilentReporter, duration
from trimtab.records import Answer
from trimtab.runtime.folder import Folder, one_a_seed
from trimtab.runtime.inputs import benchmark, benchmark_name, texts
from trimtab.runtime.judges import grading, judge_setup, pairwise
from trimtab.runtime.judges.cached_endpoint import CachedEndpoint, cached_endpoint
from trimtab.runtime.run_setup import set_up
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
    name = benchmark_name(config)
    if config.judge.kind != "openai" or name is None:
        raise ConfigError(
            f"--dry-run: the judge is {config.judge.name}, which costs no calls",
            remedy="it estimates --judge openai:MODEL",
        )
    runs = one_a_seed(config)
    with cached_endpoint(config, reporter=SilentReporter(), stop=Stop()) as endpoint:
        by_run = [_questions(single, endpoint) for single in runs]
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
    estimate = plan.estimate
    cost = "unknown (give --input-price and --output-price)"
    if estimate.cost_usd is not None:
        cost = f"{estimate.cost_usd:.2f}"
    time = "unknown until this judge has been asked" if estimate.seconds is None else duration(estimate.seconds)
    return [
        f"judge   {plan.judge} at {plan.base_url}, benchmark {plan.benchmark}",
        f"calls   {estimate.n_calls:,} to make, {estimate.n_cached:,} verdicts kept from before",
        f"tokens  about {estimate.prompt_tokens:,} in, at most {estimate.completion_tokens_at_most:,} out",
        f"cost    US dollars, at most: {cost}",
        f"time    {time}",
        *([ASSUMPTION] if plan.is_assumed else []),
    ]


def _questions(config: Config, endpoint: CachedEndpoint) -> tuple[list[Question], bool]:
    """Everything that the judge would be asked about one run, and whether its answers are assumed."""
    prompts, name = benchmark(config), benchmark_name(config)
    assert name is not None
    folder, text = Folder.of(config), "x" * CHARACTERS_A_TOKEN * config.generate.max_new_tokens
    if prompts.multi_turn:
        return _grading_questions(
            config, prompts, folder.answers(name, turns=True), folder.unaligned_answers(name, turns=True), text
        )
    is_assumed = not folder.answers(name).is_file()
    if is_assumed:
        baseline, sides = _assumed_answers(config, prompts, text)
    else:
        baseline, files = pairwise.answers(folder, name)
        sides = list(files.values())
    judge = judge_setup.endpoint_judge(set_up(config), endpoint)
    return judge.questions(pairwise.comparisons(baseline, sides, n_canaries=config.judge.canaries)), is_assumed


def _assumed_answers(config: Config, prompts: Benchmark, text: str) -> tuple[list[Answer], list[list[Answer]]]:
    def answers(output: str, generator: str) -> list[Answer]:
        return [Answer(prompt.id, prompt.instruction, output, generator, prompt.dataset) for prompt in prompts.prompts]

    aligned, unaligned = answers(text, "aligned"), answers(text + ".", "unaligned")
    if not prompts.has_baseline:
        return unaligned, [aligned]
    baseline = [prompt.baseline_answer() for prompt in prompts.prompts]
    return baseline, [aligned, unaligned] if config.benchmark.unaligned == "on" else [aligned]


def _grading_questions(
    config: Config, questions: Benchmark, aligned: Path, unaligned: Path, text: str
) -> tuple[list[Question], bool]:
    prompts = official.judge_prompts(source=texts(config))
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
