"""Generate: the aligned and the unaligned model answer the benchmark's prompts, with the same decoding and seed.

The unaligned model answers too, unless answers are judged against a published baseline and `benchmark.unaligned` is
off: what alignment did is the difference between the two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from trimtab import store
from trimtab.config import config_digest
from trimtab.endpoint import Endpoint
from trimtab.engine import identity
from trimtab.errors import ConfigError
from trimtab.judging import mt_bench_grading
from trimtab.judging.answer_files import TurnAnswers, fastchat_rows
from trimtab.judging.benchmarks import Benchmark
from trimtab.progress import Reporter
from trimtab.records import Answer, digest
from trimtab.runtime.answering import Spoken, answer_turns
from trimtab.runtime.run_setup import RunSetup

TEMPERATURE = 0.7  # of answers, where neither the configuration nor the benchmark says


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Write `answers/<benchmark>.json` and `….baseline.json`, and `….unaligned.json` where that is another's baseline;
    of prompts with several turns, `….jsonl` and `….unaligned.jsonl`. A prompt that got no answer is left out."""
    name, folder = setup.benchmark_name, setup.folder
    if name is None:
        return
    aligned = folder.require(folder.model, "train")
    benchmark = setup.benchmark
    decided = config_digest(setup.config, "generate", "benchmark", "model", "base_url")
    inputs = digest([asdict(identity.identify(str(aligned))), benchmark.digest, _temperatures(setup), decided])
    if folder.is_done("generate", inputs):
        reporter.say(f"generate: {name} is answered already")
        return
    sides = {_aligned_path(setup, name): aligned, _unaligned_path(setup, name): None}
    counts = {path: _answer(setup, path, model, reporter=reporter) for path, model in sides.items() if path is not None}
    written = list(counts)
    if benchmark.has_baseline and not benchmark.multi_turn:
        published = [prompt.baseline_answer().to_json() for prompt in benchmark.prompts]
        store.write_json(folder.baseline_answers(name), published)
        written.append(folder.baseline_answers(name))
    if setup.config.generate.sampler == "local" or set(counts.values()) == {len(benchmark.prompts)}:
        folder.finish("generate", inputs, written)  # else the server is asked again for what it did not answer


def _aligned_path(setup: RunSetup, name: str) -> Path:
    return setup.folder.answers(name, turns=setup.benchmark.multi_turn)


def _unaligned_path(setup: RunSetup, name: str) -> Path | None:
    """Where the unaligned model's answers go; None (and none from before) where they are not wanted."""
    asked, folder = setup.benchmark, setup.folder
    if not asked.has_baseline and not asked.multi_turn:
        return folder.baseline_answers(name)
    path = folder.unaligned_answers(name, turns=asked.multi_turn)
    if setup.config.benchmark.unaligned == "on":
        return path
    store.remove(path)
    return None


def _answer(setup: RunSetup, path: Path, aligned: Path | None, *, reporter: Reporter) -> int:
    """Have one of the two models answer, write its answers and count them; `aligned` None: the unaligned one."""
    config, asked = setup.config, setup.benchmark
    spoken = answer_turns(
        aligned or setup.model_folder,
        [prompt.turns for prompt in asked.prompts],
        temperatures=_temperatures(setup),
        decoding=config.generate,
        setup=setup,
        reporter=reporter,
        what=f"answers of the {'aligned' if aligned else 'unaligned'} model",
        endpoint=_server(setup, aligned=aligned is not None),
    )
    generator = f"{config.model.name} aligned" if aligned else config.model.name
    if asked.multi_turn:
        turns = _turns(asked, spoken, generator)
        store.write_jsonl(path, fastchat_rows(turns, tstamp=time.time()))
        return len(turns)
    answers = _answers(asked, spoken, generator)
    store.write_json(path, [one.to_json() for one in answers])
    return len(answers)


def _server(setup: RunSetup, *, aligned: bool) -> Endpoint | None:
    """The server that samples for a model; None where it is decoded here."""
    told = setup.config.generate
    if told.sampler == "local":
        return None
    served = told.served_as if aligned else told.unaligned_served_as
    if served is None:
        raise ConfigError(
            "generate.unaligned_served_as is not set: the name under which the server has the unaligned model",
            remedy="add it, or --benchmark.unaligned off where answers are judged against a published baseline",
        )
    return Endpoint(served, base_url=told.base_url or setup.config.base_url)


def _temperatures(setup: RunSetup) -> list[float]:
    """The sampling temperature of every prompt: as configured, else as the benchmark has it."""
    configured, benchmark = setup.config.generate.temperature, setup.benchmark
    if configured is not None:
        return [configured] * len(benchmark.prompts)
    if benchmark.name == "mt_bench":
        return [mt_bench_grading.temperature(prompt) for prompt in benchmark.prompts]
    return [TEMPERATURE if prompt.temperature is None else prompt.temperature for prompt in benchmark.prompts]


def _answers(asked: Benchmark, spoken: Sequence[Sequence[Spoken]], generator: str) -> list[Answer]:
    return [
        Answer(prompt.id, prompt.instruction, one.text, generator, prompt.dataset, one.n_tokens, one.finished)
        for prompt, said in zip(asked.prompts, spoken, strict=True)
        for one in said
    ]


def _turns(asked: Benchmark, spoken: Sequence[Sequence[Spoken]], generator: str) -> list[TurnAnswers]:
    return [
        TurnAnswers(
            prompt.id,
            tuple(one.text for one in said),
            generator,
            n_tokens=sum(one.n_tokens for one in said),
            finished=all(one.finished for one in said),
        )
        for prompt, said in zip(asked.prompts, spoken, strict=True)
        if len(said) == len(prompt.turns)
    ]
