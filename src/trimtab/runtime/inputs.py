"""What the words of a configuration stand for: a model's folder, a benchmark's prompts.

The embedded world answers to the word `windtunnel` wherever a model, a data set or a benchmark is named.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trimtab import windtunnel
from trimtab.config import Config
from trimtab.engine import identity
from trimtab.errors import DataError
from trimtab.judging import mt_bench_grading, official
from trimtab.judging.benchmarks import Benchmark, Prompt, read_benchmark
from trimtab.judging.official_texts import Source, Text

EMBEDDED = "windtunnel"
EVAL_SEED = 1  # the benchmark's tasks are the same in every run; the world's seed moves only the training pairs
TEMPERATURE = 0.7  # of answers, where neither the configuration nor the benchmark says


def model_folder(config: Config) -> Path:
    """The local folder of the configured model: embedded, given as a path, or fetched from the Hub into its cache."""
    name = config.model.name
    if name == EMBEDDED:
        return windtunnel.model_folder()
    return identity.folder_of(name, revision=config.model.revision, offline=config.offline)


def benchmark_name(config: Config) -> str | None:
    """The name under which answers and verdicts are filed; None when nothing is asked."""
    name = config.benchmark.name
    return None if name == "none" else Path(name).name.split(".")[0] or "prompts"  # never a path of its own


def benchmark(config: Config) -> Benchmark:
    """The prompts of the configured benchmark, at most `benchmark.limit` of them."""
    name = config.benchmark.name
    if name == EMBEDDED:
        prompts = tuple(Prompt(task.id, task.prompt, dataset=task.family) for task in eval_tasks(config))
        found = Benchmark(EMBEDDED, prompts)
    elif known := official_name(config):
        found = official.benchmark(known, source=texts(config))
    else:
        found = _of_file(Path(name))
    return found if config.benchmark.limit is None else found.first(config.benchmark.limit)


def _of_file(path: Path) -> Benchmark:
    if not path.exists():
        raise DataError(
            f"benchmark {str(path)!r}: there is no such file",
            remedy=f"name {', '.join((EMBEDDED, *official.names()))}, or a JSON or JSONL file of prompts",
        )
    return read_benchmark(path)


def texts(config: Config) -> Source:
    """Where the official texts of benchmarks and judges come from."""
    folder = config.benchmark.dir
    offline = config.offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Source(folder=None if folder is None else Path(folder), offline=offline)


def official_name(config: Config) -> official.Name | None:
    """The configured benchmark, where it is one that is known by name."""
    return next((name for name in official.names() if name == config.benchmark.name), None)


def length_tables(config: Config) -> official.LengthTables | None:
    """Difficulties and regularising rows of AlpacaEval's length control; None for a benchmark that has none."""
    name = official_name(config)
    return None if name in (None, "mt_bench") else official.length_tables(name, source=texts(config))


def texts_used(config: Config, *judged_by: Text) -> dict[str, Any]:
    """The official texts behind prompts and judging, with their digests and whether they are the official ones."""
    name, source = official_name(config), texts(config)
    found = {} if name is None else official.texts(name, source=source, part="prompts")
    return {text: one.to_json() for text, one in (found | {text.name: source.find(text) for text in judged_by}).items()}


def temperatures(config: Config, asked: Benchmark) -> list[float]:
    """The sampling temperature of every prompt: as configured, else as the benchmark has it."""
    told = config.generate.temperature
    if told is not None:
        return [told] * len(asked.prompts)
    if asked.name == "mt_bench":
        return [mt_bench_grading.temperature(prompt) for prompt in asked.prompts]
    return [TEMPERATURE if prompt.temperature is None else prompt.temperature for prompt in asked.prompts]


def eval_tasks(config: Config) -> tuple[windtunnel.Task, ...]:
    """The embedded world's held-out tasks, in the benchmark's order."""
    return windtunnel.tasks(config.windtunnel.prompts, seed=EVAL_SEED, split="eval")
