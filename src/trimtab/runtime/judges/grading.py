"""One judge marks every turn of every answer from 1 to 10, as MT-Bench does: both models, each alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trimtab import store
from trimtab.analysis.canaries import canary_rows
from trimtab.config import Config, config_digest
from trimtab.judging import official
from trimtab.judging.answer_files import TurnAnswers, read_model_answers
from trimtab.judging.benchmarks import Benchmark
from trimtab.judging.mt_bench_grading import Grading, JudgePrompts, gradings, judgment_row
from trimtab.judging.questions import Outcome, Question
from trimtab.judging.verdicts import WORTHLESS, spread
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import benchmark, benchmark_name, texts, texts_used
from trimtab.runtime.judges.cached_endpoint import cached_endpoint
from trimtab.runtime.signals import stop_on_signal

MARKS = (1, 10)


def main(config: Config, *, reporter: Reporter) -> None:
    """Write `verdicts/<benchmark>.jsonl` in FastChat's form with the marks of both models, canaries, and who judged.

    A mark that was not given is −1 there. Unless that is allowed, the stage is then not done, and asks again next time.
    """
    name = benchmark_name(config)
    assert name is not None
    folder, asked = Folder.of(config), benchmark(config)
    paths = [folder.answers(name, turns=True), folder.unaligned_answers(name, turns=True)]
    files = [folder.require(paths[0], "generate"), *(path for path in paths[1:] if path.is_file())]
    files_read = [store.file_digest(path) for path in files]
    inputs = digest([files_read, asked.digest, config_digest(config, "judge", "benchmark", "base_url")])
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {name} is judged already")
        return
    prompts = official.judge_prompts(source=texts(config))
    answers = [one for path in files for one in read_model_answers(path, benchmark=asked, allow_missing=True)]
    wanted = gradings(asked, answers, prompts)
    shown = canary_gradings(asked, prompts, n=config.judge.canaries)
    with stop_on_signal() as stop, cached_endpoint(config, reporter=reporter, stop=stop) as ask:
        ask.announce([question(one) for one in (*wanted, *shown)])
        outcome = ask([question(one) for one in wanted])
        canaries = ask([question(one) for one in shown])
        about = ask.usage().to_json()
    now = time.time()
    rows = [_row(one, outcome, judge=config.judge.model, tstamp=now) for one in wanted]
    store.write_jsonl(folder.verdicts(name, turns=True), rows)
    store.write_json(folder.canaries(name), [{"judge": config.judge.model, "canaries": _sung(shown, canaries)}])
    aligned = answers[0].generator
    n_prompts = sum(len(prompt.turns) for prompt in asked.prompts)
    n_judged = sum(one.model == aligned and one.id in outcome.values for one in wanted)
    used = texts_used(config, official.JUDGE_PROMPTS)
    who = {
        "judge": config.judge.model,
        "rubric": "single-answer grading",
        "order": "none",
        "prompt_sha256": used[official.JUDGE_PROMPTS.name]["sha256"],
    }
    counts = {"n_prompts": n_prompts, "n_missing": n_prompts - n_judged, "allow_missing": config.judge.allow_missing}
    unanswered = n_prompts - sum(one.model == aligned for one in wanted)
    reasons = ", ".join(filter(None, [f"turns not answered: {unanswered}" if unanswered else "", about["reasons"]]))
    store.write_json(folder.judge(name), about | who | counts | {"texts": used, "reasons": reasons})
    if config.judge.allow_missing or len(outcome.values) == len(wanted):
        folder.finish("judge", inputs, [folder.verdicts(name, turns=True), folder.canaries(name), folder.judge(name)])
    reporter.say(f"judge: {n_judged} of {n_prompts} turns of the aligned model marked by {config.judge.model}")


def question(grading: Grading) -> Question:
    """A grading as a question that is answered by a mark."""
    return Question(id=grading.id, request=grading.request(), parse=grading.read)


def canary_gradings(asked: Benchmark, prompts: JudgePrompts, *, n: int) -> list[Grading]:
    """Worthless answers to the first turns of `n` prompts, by the canary's name."""
    first = [replace(prompt, later_turns=()) for prompt in spread(asked.prompts, n)]
    answers = [TurnAnswers(one.id, (text,), generator=name) for name, text in WORTHLESS.items() for one in first]
    return gradings(Benchmark(asked.name, tuple(first)), answers, prompts) if first else []


def _sung(shown: Sequence[Grading], outcome: Outcome) -> list[dict[str, Any]]:
    told = {name: [_share(outcome.values.get(one.id)) for one in shown if one.model == name] for name in WORTHLESS}
    return canary_rows(told, what="marks") if shown else []


def _row(grading: Grading, outcome: Outcome, *, judge: str, tstamp: float) -> dict[str, object]:
    score = outcome.values.get(grading.id)
    failure = outcome.failures.get(grading.id)
    judgment = outcome.replies[grading.id].text if failure is None else f"no mark: {failure.kind}: {failure.message}"
    return judgment_row(grading, judge=judge, judgment=judgment, score=score, tstamp=tstamp)


def _share(mark: float | None) -> float | None:
    """A mark as a preference: its place on the scale, from 1 at the lowest to 2 at the highest."""
    low, high = MARKS
    return None if mark is None else 1 + max(mark - low, 0.0) / (high - low)  # a 0 is below the scale
