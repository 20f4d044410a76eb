"""What judging a run would take: calls, tokens, money and time; nothing is asked and nothing is written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.config import Config
from trimtab.errors import ConfigError
from trimtab.judging import official
from trimtab.judging.answer_files import TurnAnswers, read_model_answers
from trimtab.judging.benchmarks import Benchmark
from trimtab.judging.mt_bench_grading import gradings
from trimtab.judging.questions import Question
from trimtab.progress import SilentReporter, duration
from trimtab.records import Answer
from trimtab.runtime.folder import Folder, one_a_seed
from trimtab.runtime.inputs import benchmark, benchmark_name, texts
from trimtab.runtime.judges import grading, judge_setup, pairwise
from trimtab.runtime.judges.cached_endpoint import CachedEndpoint, cached_endpoint
from trimtab.runtime.signals import Stop

CHARACTERS_A_TOKEN = 4  # for answers that are not there yet
ASSUMED = "note: there are no answers yet; each is taken to be as long as may be sampled"


def main(config: Config) -> dict[str, Any]:
    """`calls, cached, prompt_tokens, completion_tokens_at_most, cost_usd, seconds`, the judge, and what was assumed."""
    if config.judge.kind != "openai" or benchmark_name(config) is None:
        raise ConfigError(
            f"--dry-run: the judge is {config.judge.name}, which costs no calls",
            remedy="it estimates --judge openai:MODEL",
        )
    runs = one_a_seed(config)
    with cached_endpoint(config, reporter=SilentReporter(), stop=Stop()) as ask:
        asked = [_questions(single, ask) for single in runs]
        told = ask.estimate([question for questions, _ in asked for question in questions])
        where = ask.endpoint.base_url
    return {
        "judge": config.judge.name,
        "base_url": where,
        "benchmark": benchmark_name(config),
        "answers": "assumed" if any(assumed for _, assumed in asked) else "read",
        "max_cost": config.judge.max_cost,
    } | asdict(told)


def lines(told: dict[str, Any]) -> list[str]:
    """The estimate for a terminal."""
    cost = "unknown (give --input-price and --output-price)" if told["cost_usd"] is None else f"{told['cost_usd']:.2f}"
    time = "unknown until this judge has been asked" if told["seconds"] is None else duration(told["seconds"])
    return [
        f"judge   {told['judge']} at {told['base_url']}, benchmark {told['benchmark']}",
        f"calls   {told['n_calls']:,} to make, {told['n_cached']:,} verdicts kept from before",
        f"tokens  about {told['prompt_tokens']:,} in, at most {told['completion_tokens_at_most']:,} out",
        f"cost    US dollars, at most: {cost}",
        f"time    {time}",
        *([ASSUMED] if told["answers"] == "assumed" else []),
    ]


def _questions(config: Config, ask: CachedEndpoint) -> tuple[list[Question], bool]:
    """Everything that the judge would be asked about one run, and whether its answers are assumed."""
    asked = benchmark(config)
    name = benchmark_name(config)
    assert name is not None
    folder, text = Folder.of(config), "x" * CHARACTERS_A_TOKEN * config.generate.max_new_tokens
    if asked.multi_turn:
        return _marks(config, asked, folder.answers(name, turns=True), folder.unaligned_answers(name, turns=True), text)
    assumed = not folder.answers(name).is_file()
    if assumed:
        baseline, sides = _assumed(config, asked, text)
    else:
        baseline, files = pairwise.answers(folder, name)
        sides = list(files.values())
    judge = judge_setup.endpoint_judge(config, ask)
    return judge.questions(pairwise.comparisons(baseline, sides, n_canaries=config.judge.canaries)), assumed


def _assumed(config: Config, asked: Benchmark, text: str) -> tuple[list[Answer], list[list[Answer]]]:
    def all_say(words: str, generator: str) -> list[Answer]:
        return [Answer(one.id, one.instruction, words, generator, one.dataset) for one in asked.prompts]

    aligned = all_say(text, "aligned")
    if not asked.has_baseline:
        return all_say(text + ".", "unaligned"), [aligned]
    baseline = [prompt.baseline_answer() for prompt in asked.prompts]
    return baseline, [aligned, all_say(text + ".", "unaligned")] if config.benchmark.unaligned == "on" else [aligned]


def _marks(config: Config, asked: Benchmark, aligned: Path, unaligned: Path, text: str) -> tuple[list[Question], bool]:
    prompts = official.judge_prompts(source=texts(config))
    if assumed := not aligned.is_file():
        models = ["aligned", "unaligned"] if config.benchmark.unaligned == "on" else ["aligned"]
        said = [TurnAnswers(one.id, (text,) * len(one.turns), model) for model in models for one in asked.prompts]
    else:
        files = [path for path in (aligned, unaligned) if path.is_file()]
        said = [one for path in files for one in read_model_answers(path, benchmark=asked, allow_missing=True)]
    shown = grading.canary_gradings(asked, prompts, n=config.judge.canaries)
    return [grading.question(one) for one in (*gradings(asked, said, prompts), *shown)], assumed
