"""What the words of a configuration stand for: a model's folder, a benchmark's prompts.

The embedded world answers to the word `windtunnel` wherever a model, a data set or a benchmark is named.
"""

from __future__ import annotations

from pathlib import Path

from trimtab import windtunnel
from trimtab.config import Config
from trimtab.errors import ModelError
from trimtab.judging.benchmarks import Benchmark, Prompt, read_benchmark

EMBEDDED = "windtunnel"
EVAL_SEED = 1  # the benchmark's tasks are the same in every run; the world's seed moves only the training pairs

_MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]


def model_folder(config: Config) -> Path:
    """The local folder of the configured model: embedded, given as a path, or fetched from the Hub into its cache."""
    name = config.model.name
    if name == EMBEDDED:
        return windtunnel.model_folder()
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{name}: there is no such folder", remedy="name a model folder or a Hub model (owner/name)")
    return _fetched(name, config)


def _fetched(name: str, config: Config) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = [*_MODEL_FILES, "*.py"] if config.model.trust_remote_code else _MODEL_FILES
    try:
        return Path(
            snapshot_download(
                name, revision=config.model.revision, allow_patterns=patterns, local_files_only=config.offline
            )
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{name}: its authors ask you to accept terms first", remedy="accept them on its Hub page and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: no such model on the Hub", remedy="check the name, or set HF_TOKEN") from error
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f"{name}: neither a folder here nor to be had from the Hub",
            remedy="check the name and the connection, or name a local folder made by save_pretrained",
        ) from error


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
        found = read_benchmark(Path(config.benchmark.name))
    return found if config.benchmark.limit is None else found.first(config.benchmark.limit)


def eval_tasks(config: Config) -> tuple[windtunnel.Task, ...]:
    """The embedded world's held-out tasks, in the benchmark's order."""
    return windtunnel.tasks(config.windtunnel.prompts, seed=EVAL_SEED, split="eval")
