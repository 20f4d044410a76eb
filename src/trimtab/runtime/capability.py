"""What a model can do: tasks of EleutherAI's lm-eval, one value a sample, kept under the model and the task.

lm-eval is an extra, imported here alone and only when it is asked. Its own cache is never used: the key of that leaves
the model out. Ours names the weights, the tokenizer, the task with its documents, and lm-eval's version.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata, util
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.engine import identity, models
from trimtab.errors import ConfigError, DataError
from trimtab.records import digest

PACKAGE = "lm_eval"
FEWSHOT_SEED = 1234  # lm-eval's own default
FORMAT = 1  # raise when what is kept of a sample changes


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One model on one task. `samples` name the documents; `metrics` have a value for each of them, in that order.

    `higher_is_better`: of each metric. `left_out`: metrics that are of the whole task and of no single sample.
    """

    task: str
    samples: tuple[str, ...]
    metrics: Mapping[str, tuple[float, ...]]
    higher_is_better: Mapping[str, bool]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "samples": list(self.samples),
            "metrics": {name: list(values) for name, values in self.metrics.items()},
            "higher_is_better": dict(self.higher_is_better),
            "left_out": list(self.left_out),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> TaskScores:
        metrics = {name: tuple(values) for name, values in tree["metrics"].items()}
        return cls(tree["task"], tuple(tree["samples"]), metrics, tree["higher_is_better"], tuple(tree["left_out"]))


@dataclass(frozen=True, slots=True)
class CapabilityTask:
    """A task that lm-eval has read, with its documents. `digest` names all that it asks and how it scores."""

    name: str
    digest: str
    task: Any


def require_library() -> None:
    """Raises ConfigError where lm-eval is not installed."""
    if util.find_spec(PACKAGE) is None:
        raise ConfigError("trimtab check asks lm-eval, which is not installed", remedy="pip install 'trimtab[check]'")


def load_tasks(specs: Sequence[str], *, limit: int | None, offline: bool) -> list[CapabilityTask]:
    """The tasks of these files and names; a group gives all that are in it. Raises UserError for one that cannot be
    read, that lm-eval does not know, or whose documents cannot be had."""
    if offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with _quiet():
        from lm_eval.tasks import TaskManager

        manager = TaskManager()
        tasks: dict[str, CapabilityTask] = {}
        for spec in specs:
            files = _python_beside(Path(spec)) if _is_file(spec) else []
            for name, task in _load(manager, spec).items():
                if name in tasks:
                    raise ConfigError(f"{spec}: task {name} is asked already", remedy="give it another name, or once")
                task.set_fewshot_seed(seed=FEWSHOT_SEED)
                tasks[name] = CapabilityTask(name, _task_digest(task, files, limit=limit), task)
    return list(tasks.values())


def _is_file(spec: str) -> bool:
    return spec.endswith((".yaml", ".yml")) or "/" in spec


def _load(manager: Any, spec: str) -> dict[str, Any]:
    if _is_file(spec) and not Path(spec).is_file():
        raise ConfigError(f"{spec}: there is no such file", remedy="name a task file of lm-eval (YAML), or a task")
    if not _is_file(spec) and spec not in manager.task_index:
        near = get_close_matches(spec, manager.all_tasks, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"lm-eval {metadata.version(PACKAGE)} has no task {spec!r}",
            remedy=f"{hint}A file of your own ends in .yaml",
        )
    try:
        loaded: dict[str, Any] = manager.load(spec)["tasks"]
    except Exception as error:  # a library's readers, a YAML parser and a downloader speak here
        raise _load_error(spec, error) from error
    if not loaded:
        raise DataError(
            f"{spec}: lm-eval reads no task from it", remedy="write the keys that its documentation asks for"
        )
    return loaded


def _load_error(spec: str, error: Exception) -> ConfigError | DataError:
    first = _first_line(error)
    if not _is_file(spec):
        return DataError(
            f"the documents of {spec} cannot be had ({type(error).__name__}: {first})",
            remedy="named tasks fetch their data from the Hub: check the connection, or give a local task file",
        )
    return ConfigError(
        f"{spec}: lm-eval cannot read this task ({type(error).__name__}: {first})",
        remedy="correct the file; lm-eval's `lm-eval validate --tasks FILE` says more",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]


def _python_beside(path: Path) -> list[Path]:
    """A task file may name functions of modules that lie beside it."""
    return [path, *sorted(path.parent.glob("*.py"))]


def _task_digest(task: Any, files: Sequence[Path], *, limit: int | None) -> str:
    documents = list(task.eval_docs)[:limit]
    shots = list(task.fewshot_docs() or ()) if task.config.num_fewshot else []
    return digest(
        [
            FORMAT,
            metadata.version(PACKAGE),
            repr(sorted(task.dump_config().items())),
            [store.file_digest(path) for path in files],
            [digest(repr(row)) for row in (*documents, *shots)],
        ]
    )


class CapabilityModel:
    """The model in a folder, asked only for what is not kept already, and loaded only then."""

    def __init__(self, folder: Path, *, dtype: models.DtypeName, device: models.DeviceName, batch: int = 8) -> None:
        self.folder, self.dtype, self.device, self.batch = folder, dtype, device, batch
        self.identity = identity.identify(str(folder), offline=True)
        self.n_asked = 0  # tasks
        self._lm: Any = None

    def scores(self, task: CapabilityTask, *, limit: int | None, chat: bool) -> TaskScores:
        """Every sample of a task (`limit`: of the first so many); kept as soon as the task is done."""
        own = self.identity
        key = digest([own.weights, own.adapter, own.tokenizer, self.dtype, task.digest, limit, chat])
        path = store.home() / "capability" / f"{key}.json"
        if path.is_file():
            return TaskScores.from_json(store.read_json(path))
        scores = self._ask(task, limit=limit, chat=chat)
        store.write_json(path, scores.to_json())
        return scores

    def _ask(self, task: CapabilityTask, *, limit: int | None, chat: bool) -> TaskScores:
        with _quiet():
            from lm_eval.evaluator import evaluate

            self.n_asked += 1
            try:
                results = evaluate(
                    self._library_model(),
                    {"tasks": {task.name: task.task}, "groups": {}, "group_map": {}},
                    limit=limit,
                    bootstrap_iters=0,
                    log_samples=True,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                )
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise ConfigError(
                    f"{task.name}: lm-eval cannot ask this task ({type(error).__name__}: {_first_line(error)})",
                    remedy="correct the task file; lm-eval's `lm-eval validate --tasks FILE` says more",
                ) from error
        direction = {name: bool(up) for name, up in task.task.higher_is_better().items()}
        return scores_of(task.name, results["samples"][task.name], direction)

    def _library_model(self) -> Any:
        if self._lm is None:
            from lm_eval.models.huggingface import HFLM

            bundle = models.load(str(self.folder), dtype=self.dtype, device=self.device, offline=True)
            self._lm = HFLM(pretrained=bundle.model, tokenizer=bundle.tokenizer, batch_size=self.batch)
        return self._lm


def scores_of(task: str, rows: Sequence[Mapping[str, Any]], direction: Mapping[str, bool]) -> TaskScores:
    """A metric's value of a sample, by `metric` or, where a task has several filters, by `metric,filter`. `direction`:
    of each metric, whether higher is better; one that it leaves out is."""
    filters = list(dict.fromkeys(row["filter"] for row in rows))
    metrics: dict[str, tuple[float, ...]] = {}
    higher: dict[str, bool] = {}
    left_out: list[str] = []
    for chain in filters:
        own = sorted((row for row in rows if row["filter"] == chain), key=lambda row: row["doc_id"])
        for metric in own[0]["metrics"]:
            name = metric if len(filters) == 1 else f"{metric},{chain}"
            values = [row[metric] for row in own]
            if all(isinstance(value, bool | int | float) or hasattr(value, "item") for value in values):
                metrics[name] = tuple(float(value) for value in values)
                higher[name] = direction.get(metric, True)
            else:
                left_out.append(name)
    samples = [f"{row['doc_id']}:{row['doc_hash'][:12]}" for row in rows if row["filter"] == filters[0]]
    order = sorted(range(len(samples)), key=lambda place: int(samples[place].partition(":")[0]))
    return TaskScores(task, tuple(samples[place] for place in order), metrics, higher, tuple(left_out))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval and what it reads with tell of every step and draw bars; what goes wrong comes as an error."""
    logger = logging.getLogger(PACKAGE)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
