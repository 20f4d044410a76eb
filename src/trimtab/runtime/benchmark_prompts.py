"""The prompts that a benchmark's name stands for, and the official texts behind them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trimtab import windtunnel
from trimtab.config import BenchmarkSection, Config
from trimtab.errors import DataError
from trimtab.judging import official
from trimtab.judging.benchmarks import Benchmark, Prompt, read_benchmark
from trimtab.judging.official_texts import Source, Text

EVAL_SEED = 1  # the benchmark's tasks are the same in every run; the world's seed moves only the training pairs


def file_name(section: BenchmarkSection) -> str | None:
    """The name under which answers and verdicts are filed; None when nothing is asked."""
    name = section.name
    return None if name == "none" else Path(name).name.split(".")[0] or "prompts"  # never a path of its own


def official_name(section: BenchmarkSection) -> official.Name | None:
    """The benchmark, where it is one that is known by name."""
    return next((name for name in official.names() if name == section.name), None)


def texts_source(config: Config) -> Source:
    """Where the official texts of benchmarks and judges come from."""
    folder = config.benchmark.dir
    offline = config.offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return Source(folder=None if folder is None else Path(folder), offline=offline)


def read_prompts(config: Config) -> Benchmark:
    """The prompts of the configured benchmark, at most `benchmark.limit` of them."""
    section = config.benchmark
    if section.name == windtunnel.NAME:
        tasks = evaluation_tasks(config.windtunnel.prompts)
        benchmark = Benchmark(
            windtunnel.NAME, tuple(Prompt(task.id, task.prompt, dataset=task.family) for task in tasks)
        )
    elif name := official_name(section):
        benchmark = official.benchmark(name, source=texts_source(config))
    else:
        benchmark = _of_file(Path(section.name))
    return benchmark if section.limit is None else benchmark.first(section.limit)


def evaluation_tasks(n: int) -> tuple[windtunnel.Task, ...]:
    """The embedded world's held-out tasks, in the benchmark's order."""
    return windtunnel.tasks(n, seed=EVAL_SEED, split="eval")


def length_tables(name: official.Name | None, *, source: Source) -> official.LengthTables | None:
    """Difficulties and regularising rows of AlpacaEval's length control; None for a benchmark that has none."""
    return None if name in (None, "mt_bench") else official.length_tables(name, source=source)


def texts_used(name: official.Name | None, *judged_by: Text, source: Source) -> dict[str, Any]:
    """The official texts behind prompts and judging, with their digests and whether they are the official ones."""
    texts = {} if name is None else official.texts(name, source=source, part="prompts")
    return {
        name: text.to_json() for name, text in (texts | {text.name: source.find(text) for text in judged_by}).items()
    }


def _of_file(path: Path) -> Benchmark:
    if not path.exists():
        raise DataError(
            f"benchmark {str(path)!r}: there is no such file",
            remedy=f"name {', '.join((windtunnel.NAME, *official.names()))}, or a JSON, JSONL, CSV or text file",
        )
    return read_benchmark(path)
