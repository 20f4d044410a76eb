"""One judge marks every turn of every answer from 1 to 10, as MT-Bench does: both models, each alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimtab import store
from trimtab.analysis.canaries import canary_rows
from trimtab.config import config_digest
from trimtab.judging import official
from trimtab.judging.answer_files import TurnAnswers, read_model_answers
from trimtab.judging.benchmarks import Benchmark
from trimtab.judging.mt_bench_grading import Grading, JudgePrompts, gradings, judgment_row
from trimtab.judging.questions import Outcome, Question
from trimtab.judging.verdicts import WORTHLESS, spread
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.runtime.benchmark_prompts import texts_used
from trimtab.runtime.judges.cached_endpoint import cached_endpoint
from trimtab.runtime.judges.judge_record import JudgeIdentity, JudgeRecord
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.signals import stop_on_signal

LOWEST, HIGHEST = 1, 10  # FastChat's scale


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write `verdicts/<benchmark>.jsonl` in FastChat's form with the marks of both models, canaries, and who judged.

    A mark that was not given is −1 there. Unless that is allowed, the stage is then not done, and asks again next time.
    """
    name, config, folder = setup.benchmark_name, setup.config, setup.folder
    assert name is not None
    files = _answer_files(setup, name)
    digests = [store.file_digest(path) for path in files]
    inputs = digest([digests, setup.benchmark.digest, config_digest(config, "judge", "benchmark", "base_url")])
    if folder.is_done("judge", inputs):
        reporter.say(f"judge: {name} is judged already")
        return
    prompts = official.judge_prompts(source=setup.texts)
    answers = _read_answers(files, setup.benchmark)
    turns = gradings(setup.benchmark, answers, prompts)
    canaries = canary_gradings(setup.benchmark, prompts, n=config.judge.canaries)
    with stop_on_signal() as stop, cached_endpoint(config, reporter=reporter, stop=stop) as client:
        client.announce([question(grading) for grading in (*turns, *canaries)])
        outcome = client([question(grading) for grading in turns])
        canary_outcome = client([question(grading) for grading in canaries])
        usage = client.usage()
    _write_marks(turns, outcome, judge=config.judge.model, path=folder.verdicts(name, turns=True))
    _write_canaries(canaries, canary_outcome, judge=config.judge.model, path=folder.canaries(name))
    of_aligned = [grading for grading in turns if grading.model == answers[0].generator]
    n_prompts = sum(len(prompt.turns) for prompt in setup.benchmark.prompts)
    record = JudgeRecord(
        identity=_identity(setup),
        usage=usage,
        n_prompts=n_prompts,
        n_missing=n_prompts - sum(grading.id in outcome.values for grading in of_aligned),
        n_unanswered=n_prompts - len(of_aligned),
        allow_missing=config.judge.allow_missing,
        unit="turns",
    )
    store.write_json(folder.judge(name), record.to_json())
    if config.judge.allow_missing or len(outcome.values) == len(turns):
        folder.finish("judge", inputs, [folder.verdicts(name, turns=True), folder.canaries(name), folder.judge(name)])
    for note in usage.notes:
        reporter.say(f"judge: {note}")
    n_marked = n_prompts - record.n_missing
    reporter.say(f"judge: {n_marked} of {n_prompts} turns of the aligned model marked by {config.judge.model}")


def question(grading: Grading) -> Question:
    """A grading as a question that is answered by a mark."""
    return Question(id=grading.id, request=grading.request(), parse=grading.read)


def canary_gradings(benchmark: Benchmark, prompts: JudgePrompts, *, n: int) -> list[Grading]:
    """Worthless answers to the first turns of `n` prompts, by the canary's name."""
    first_turns = [replace(prompt, later_turns=()) for prompt in spread(benchmark.prompts, n)]
    answers = [
        TurnAnswers(prompt.id, (text,), generator=name) for name, text in WORTHLESS.items() for prompt in first_turns
    ]
    return gradings(Benchmark(benchmark.name, tuple(first_turns)), answers, prompts) if first_turns else []


def _answer_files(setup: RunSetup, name: str) -> list[Path]:
    """The aligned model's answers, and the unaligned one's where they were asked for."""
    folder = setup.folder
    unaligned = folder.unaligned_answers(name, turns=True)
    aligned = folder.require(folder.answers(name, turns=True), "generate")
    return [aligned, unaligned] if unaligned.is_file() else [aligned]


def _read_answers(files: Sequence[Path], benchmark: Benchmark) -> list[TurnAnswers]:
    return [answer for path in files for answer in read_model_answers(path, benchmark=benchmark, allow_missing=True)]


def _identity(setup: RunSetup) -> JudgeIdentity:
    texts = texts_used(setup.official_benchmark, official.JUDGE_PROMPTS, source=setup.texts)
    return JudgeIdentity(
        judge=setup.config.judge.model,
        rubric="single-answer grading",
        prompt_sha256=texts[official.JUDGE_PROMPTS.name]["sha256"],
        order="none",
        texts=texts,
    )


def _write_marks(turns: Sequence[Grading], outcome: Outcome, *, judge: str, path: Path) -> None:
    now, rows = time.time(), []
    for grading in turns:
        failure, mark = outcome.failures.get(grading.id), outcome.values.get(grading.id)
        judgment = (
            outcome.replies[grading.id].text if failure is None else f"no mark: {failure.kind}: {failure.message}"
        )
        rows.append(judgment_row(grading, judge=judge, judgment=judgment, score=mark, tstamp=now))
    store.write_jsonl(path, rows)


def _write_canaries(canaries: Sequence[Grading], outcome: Outcome, *, judge: str, path: Path) -> None:
    preferences = {
        name: [_preference(outcome.values.get(grading.id)) for grading in canaries if grading.model == name]
        for name in WORTHLESS
    }
    rows = canary_rows(preferences, scale="marks") if canaries else []
    store.write_json(path, [{"judge": judge, "canaries": [row.to_json() for row in rows]}])


def _preference(mark: float | None) -> float | None:
    """A mark's place on the scale, from 1 at the lowest to 2 at the highest."""
    return None if mark is None else 1 + max(mark - LOWEST, 0.0) / (HIGHEST - LOWEST)  # a 0 is below the scale
