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
from trimtab.runtime.answering import TurnAnswer, answer_turns
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
    keys = config_digest(setup.config, "generate", "benchmark", "model", "base_url")
    inputs = digest([asdict(identity.identify(str(aligned))), benchmark.digest, _temperatures(setup), keys])
    processes = setup.processes
    if processes.first(lambda: folder.is_done("generate", inputs)):
        reporter.say(f"generate: {name} is answered already")
        return
    sides = {_aligned_path(setup, name): aligned, _unaligned_path(setup, name): None}
    counts = {path: _answer(setup, path, model, reporter=reporter) for path, model in sides.items() if path is not None}
    outputs = list(counts)
    if not processes.is_first:
        return
    if benchmark.has_baseline and not benchmark.multi_turn:
        baseline = [prompt.baseline_answer().to_json() for prompt in benchmark.prompts]
        store.write_json(folder.baseline_answers(name), baseline)
        outputs.append(folder.baseline_answers(name))
    if setup.config.generate.sampler == "local" or set(counts.values()) == {len(benchmark.prompts)}:
        folder.finish("generate", inputs, outputs)  # else the server is asked again for what it did not answer


def answer_unaligned(setup: RunSetup, *, reporter: Reporter) -> None:
    """Only the unaligned model's answers, where they are wanted: then they are in the cache for all runs like this."""
    if setup.benchmark_name is None or setup.config.generate.sampler != "local":
        return
    if (path := _unaligned_path(setup, setup.benchmark_name)) is not None:
        _answer(setup, path, None, reporter=reporter)


def _aligned_path(setup: RunSetup, name: str) -> Path:
    return setup.folder.answers(name, turns=setup.benchmark.multi_turn)


def _unaligned_path(setup: RunSetup, name: str) -> Path | None:
    """Where the unaligned model's answers go; None (and none from before) where they are not wanted."""
    benchmark, folder = setup.benchmark, setup.folder
    if not benchmark.has_baseline and not benchmark.multi_turn:
        return folder.baseline_answers(name)
    path = folder.unaligned_answers(name, turns=benchmark.multi_turn)
    if setup.config.benchmark.unaligned == "on":
        return path
    if setup.processes.is_first:
        store.remove(path)
    return None


def _answer(setup: RunSetup, path: Path, aligned: Path | None, *, reporter: Reporter) -> int:
    """Have one of the two models answer, write its answers and count them; `aligned` None: the unaligned one. All
    processes answer, and the first writes."""
    config, benchmark = setup.config, setup.benchmark
    answers = answer_turns(
        aligned or setup.model_folder,
        [prompt.turns for prompt in benchmark.prompts],
        temperatures=_temperatures(setup),
        decoding=config.generate,
        setup=setup,
        reporter=reporter,
        description=f"answers of the {'aligned' if aligned else 'unaligned'} model",
        endpoint=_server(setup, aligned=aligned is not None),
    )
    generator = f"{config.model.name} aligned" if aligned else config.model.name
    if not setup.processes.is_first:
        return 0
    if benchmark.multi_turn:
        conversations = _conversations(benchmark, answers, generator)
        store.write_jsonl(path, fastchat_rows(conversations, tstamp=time.time()))
        return len(conversations)
    rows = _single_answers(benchmark, answers, generator)
    store.write_json(path, [row.to_json() for row in rows])
    return len(rows)


def _server(setup: RunSetup, *, aligned: bool) -> Endpoint | None:
    """The server that samples for a model; None where it is decoded here."""
    decoding = setup.config.generate
    if decoding.sampler == "local":
        return None
    name = decoding.served_as if aligned else decoding.unaligned_served_as
    if name is None:
        raise ConfigError(
            "generate.unaligned_served_as is not set: the name under which the server has the unaligned model",
            remedy="add it, or --benchmark.unaligned off where answers are judged against a published baseline",
        )
    return Endpoint(name, base_url=decoding.base_url or setup.config.base_url)


def _temperatures(setup: RunSetup) -> list[float]:
    """The sampling temperature of every prompt: as configured, else as the benchmark has it."""
    temperature, benchmark = setup.config.generate.temperature, setup.benchmark
    if temperature is not None:
        return [temperature] * len(benchmark.prompts)
    if benchmark.name == "mt_bench":
        return [mt_bench_grading.temperature(prompt) for prompt in benchmark.prompts]
    return [TEMPERATURE if prompt.temperature is None else prompt.temperature for prompt in benchmark.prompts]


def _single_answers(benchmark: Benchmark, answers: Sequence[Sequence[TurnAnswer]], generator: str) -> list[Answer]:
    return [
        Answer(prompt.id, prompt.instruction, turn.text, generator, prompt.dataset, turn.n_tokens, turn.finished)
        for prompt, turns in zip(benchmark.prompts, answers, strict=True)
        for turn in turns
    ]


def _conversations(benchmark: Benchmark, answers: Sequence[Sequence[TurnAnswer]], generator: str) -> list[TurnAnswers]:
    """Those in which every turn was answered."""
    return [
        TurnAnswers(
            prompt.id,
            tuple(turn.text for turn in turns),
            generator,
            n_tokens=sum(turn.n_tokens for turn in turns),
            finished=all(turn.finished for turn in turns),
        )
        for prompt, turns in zip(benchmark.prompts, answers, strict=True)
        if len(turns) == len(prompt.turns)
    ]
