"""What a report reads: the artefacts of one run, each of which may be absent.

Absent is not zero: a missing file becomes None and is told in words. A file that is there and cannot be read is an
error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trimtab import store
from trimtab.config import Config
from trimtab.errors import StoreError
from trimtab.records import Answer, Verdict
from trimtab.stages.folder import Folder
from trimtab.stages.inputs import benchmark_name

TRUTH = "oracle"
SCORES = "scores"

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Scores:
    """True mean scores of the wind tunnel, one a prompt, in the order of the answers."""

    baseline: tuple[float, ...]
    model: tuple[float, ...]
    families: tuple[str, ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Scores:
        scores = cls(tuple(row["baseline"]), tuple(row["model"]), tuple(row["families"]))
        if not len(scores.baseline) == len(scores.model) == len(scores.families):
            raise ValueError("baseline, model and families differ in length")
        return scores


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's artefacts. `before` and `after` are answers by prompt id, in the benchmark's order."""

    root: Path
    seed: int
    benchmark: str | None
    plan: Mapping[str, Any] | None
    versions: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    metrics: tuple[Mapping[str, Any], ...]
    heldout: Mapping[str, Any] | None
    screening: Mapping[str, Any] | None
    before: Mapping[str, Answer]
    after: Mapping[str, Answer]
    verdicts: Mapping[str, tuple[Verdict, ...]]
    scores: Scores | None


def read(folder: Folder, config: Config) -> Run:
    """Everything there is in one run folder."""
    benchmark = benchmark_name(config)
    before = after = None
    verdicts: dict[str, tuple[Verdict, ...]] = {}
    scores = None
    if benchmark is not None:
        before = _optional(folder.baseline_answers(benchmark), _answers)
        after = _optional(folder.answers(benchmark), _answers)
        verdicts = {judge: _parsed(path, _verdicts) for judge, path in _judges(folder, benchmark)}
        scores = _optional(folder.verdicts(benchmark, SCORES), Scores.from_json)
    return Run(
        root=folder.root,
        seed=config.seed,
        benchmark=benchmark,
        plan=_optional(folder.plan, _mapping),
        versions=_optional(folder.versions, _mapping),
        audit=_optional(folder.data / "audit.json", _mapping),
        metrics=tuple(store.read_jsonl(folder.metrics)) if folder.metrics.is_file() else (),
        heldout=_optional(folder.heldout, _mapping),
        screening=_optional(folder.screening, _mapping),
        before=before or {},
        after=after or {},
        verdicts=verdicts,
        scores=scores,
    )


def files(folder: Folder, config: Config) -> list[Path]:
    """The files that `read` would read and that are there, in a fixed order: what a report is made from."""
    benchmark = benchmark_name(config)
    paths = [folder.plan, folder.versions, folder.data / "audit.json", folder.metrics, folder.heldout]
    paths.append(folder.screening)
    if benchmark is not None:
        paths += [folder.baseline_answers(benchmark), folder.answers(benchmark)]
        paths += [path for _, path in _judges(folder, benchmark)] + [folder.verdicts(benchmark, SCORES)]
    return [path for path in paths if path.is_file()]


def _judges(folder: Folder, benchmark: str) -> Iterator[tuple[str, Path]]:
    """Judge and file of every verdict file, the truth first."""
    parent = folder.verdicts(benchmark, TRUTH).parent
    prefix = f"{benchmark}."
    found = [
        (path.name.removeprefix(prefix).removesuffix(".json"), path)
        for path in sorted(parent.glob("*.json"))
        if path.name.startswith(prefix) and not path.name.startswith(".")
    ]
    yield from sorted(((j, p) for j, p in found if j != SCORES), key=lambda entry: (entry[0] != TRUTH, entry[0]))


def _answers(rows: Any) -> dict[str, Answer]:
    answers = [Answer.from_json(row) for row in rows]
    return {answer.prompt_id: answer for answer in answers}


def _verdicts(rows: Any) -> tuple[Verdict, ...]:
    return tuple(Verdict.from_json(row) for row in rows)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _optional(path: Path, parse: Callable[[Any], Read]) -> Read | None:
    return _parsed(path, parse) if path.is_file() else None


def _parsed(path: Path, parse: Callable[[Any], Read]) -> Read:
    value = store.read_json(path)
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{path} does not have the form that this version of trimtab reads: {type(error).__name__}: {error}",
            remedy="delete the file; the stage that made it will make it again",
        ) from error
