"""What the words of a configuration stand for: a model's folder, a benchmark's prompts.

The embedded world answers to the word `windtunnel` wherever a model, a data set or a benchmark is named.
"""

from __future__ import annotations

from pathlib import Path

from trimtab import windtunnel
from trimtab.config import Config
from trimtab.engine import identity
from trimtab.errors import DataError
from trimtab.judging.benchmarks import Benchmark, Prompt, read_benchmark

EMBEDDED = "windtunnel"
EVAL_SEED = 1  # the benchmark's tasks are the same in every run; the world's seed moves only the training pairs


def model_folder(config: Config) -> Path:
    """The local folder of the configured model: embedded, given as a path, or fetched from the Hub into its cache."""
    name = config.model.name
    if name == EMBEDDED:
        return windtunnel.model_folder()
    return identity.folder_of(name, revision=config.model.revision, offline=config.offline)


def benchmark_name(config: Config) -> str | None:
    """The name under which answers and verdicts are filed; None when nothing is asked."""
    name = config.benchmark.name
    return None if name == "none" else Path(name).name.split(".")[0] or name


def benchmark(config: Config) -> Benchmark:
    """The prompts of the configured benchmark, at most `benchmark.limit` of them."""
    if config.benchmark.name == EMBEDDED:
        prompts = tuple(Prompt(task.id, task.prompt, dataset=task.family) for task in eval_tasks(config))
        found = Benchmark(EMBEDDED, prompts)
    else:
        found = _of_file(Path(config.benchmark.name))
    return found if config.benchmark.limit is None else found.first(config.benchmark.limit)


def _of_file(path: Path) -> Benchmark:
    if not path.exists():
        raise DataError(
            f"benchmark {str(path)!r}: there is no such file",
            remedy="name windtunnel, or a JSON or JSONL file of prompts",
        )
    return read_benchmark(path)


def eval_tasks(config: Config) -> tuple[windtunnel.Task, ...]:
    """The embedded world's held-out tasks, in the benchmark's order."""
    return windtunnel.tasks(config.windtunnel.prompts, seed=EVAL_SEED, split="eval")
