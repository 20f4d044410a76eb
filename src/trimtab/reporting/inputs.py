"""What a report reads: the artefacts of one run, each of which may be absent.

Absent is not zero: a missing file becomes None and is told in words. A file that is there and cannot be read is an
error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from trimtab import store
from trimtab.analysis.marks import Question, Row, categories_of, official_category
from trimtab.config import Config
from trimtab.errors import DataError, StoreError
from trimtab.judging.answer_files import question_id
from trimtab.judging.mt_bench import read_marks
from trimtab.judging.official import LengthTables
from trimtab.records import Answer, Verdict
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import EMBEDDED, benchmark, benchmark_name, length_tables

TRUTH = "oracle"
SCORES = "scores"
CHOSEN = "judge"
BESIDE = frozenset({SCORES, "unaligned", "canaries", "judge"})  # files beside verdicts that are no judge's
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)

Side = Literal["aligned", "unaligned"]

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
    """One seed's artefacts. Answers are by prompt id, in the benchmark's order.

    `baseline` is what the verdicts are against: the unaligned model, or, where the benchmark publishes answers,
    another's (`published`); `unaligned` is the unaligned model's in any case, empty where it did not answer.
    `verdicts` are by judge, the truth first; `unaligned_verdicts` are the chosen judge's on the unaligned model against
    a published baseline. `marks` are (question, turn, mark) of the aligned and the unaligned model, where a judge
    marked single answers. `judge` is the run's record of who judged, with what, at what cost. `edited` names the
    answers and verdicts that someone changed after their stage.
    """

    root: Path
    seed: int
    benchmark: str | None
    plan: Mapping[str, Any] | None
    versions: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    metrics: tuple[Mapping[str, Any], ...]
    heldout: Mapping[str, Any] | None
    screening: Mapping[str, Any] | None
    selection: Mapping[str, Any] | None
    baseline: Mapping[str, Answer]
    after: Mapping[str, Answer]
    unaligned: Mapping[str, Answer]
    published: bool
    verdicts: Mapping[str, tuple[Verdict, ...]]
    unaligned_verdicts: tuple[Verdict, ...]
    marks: Mapping[Side, tuple[Row, ...]]
    categories: Mapping[Question, str]
    judge: Mapping[str, Any] | None
    canaries: tuple[Mapping[str, Any], ...]
    length_tables: LengthTables | None
    scores: Scores | None
    edited: tuple[str, ...]

    @property
    def before(self) -> Mapping[str, Answer]:
        """What the aligned model's answers are shown beside: the unaligned model's, else the baseline's."""
        return self.unaligned or self.baseline


def read(folder: Folder, config: Config) -> Run:
    """Everything there is in one run folder."""
    name = benchmark_name(config)
    judged = _nothing_judged() if name is None else _judged(folder, config, name)
    return Run(
        root=folder.root,
        seed=config.seed,
        benchmark=name,
        plan=_optional(folder.plan, _mapping),
        versions=_optional(folder.versions, _mapping),
        audit=_optional(folder.data / "audit.json", _mapping),
        metrics=tuple(store.read_jsonl(folder.metrics)) if folder.metrics.is_file() else (),
        heldout=_optional(folder.heldout, _mapping),
        screening=_optional(folder.screening, _mapping),
        selection=_optional(folder.selection, _mapping),
        edited=tuple(folder.edited()),
        **judged,
    )


def files(folder: Folder, config: Config) -> list[Path]:
    """The files that `read` would read and that are there, in a fixed order: what a report is made from."""
    name = benchmark_name(config)
    paths = [folder.plan, folder.versions, folder.data / "audit.json", folder.metrics, folder.heldout]
    paths += [folder.screening, folder.selection]
    if name is not None:
        paths += [folder.baseline_answers(name)]
        paths += [of(name, turns=turns) for turns in (False, True) for of in (folder.answers, folder.unaligned_answers)]
        paths += [path for _, path in _judges(folder, name)] + [folder.verdicts(name, SCORES)]
        paths += [folder.verdicts(name, turns=True), folder.unaligned_verdicts(name)]
        paths += [folder.canaries(name), folder.judge(name)]
    return [path for path in paths if path.is_file()]


def _nothing_judged() -> dict[str, Any]:
    return {
        "baseline": {}, "after": {}, "unaligned": {}, "published": False, "verdicts": {}, "unaligned_verdicts": (),
        "marks": {}, "categories": {}, "judge": None, "canaries": (), "length_tables": None, "scores": None,
    }  # fmt: skip


def _judged(folder: Folder, config: Config, name: str) -> dict[str, Any]:
    """The benchmark's side of a run."""
    judge = _optional(folder.judge(name), _mapping)
    canaries = _optional(folder.canaries(name), _rows) or ()
    if folder.answers(name, turns=True).is_file():
        return _nothing_judged() | {"judge": judge, "canaries": canaries} | _conversations(folder, config, name)
    baseline = _optional(folder.baseline_answers(name), _answers) or {}
    unaligned = _optional(folder.unaligned_answers(name), _answers) or {}
    made_by = {answer.generator for answer in baseline.values()}
    published = bool(unaligned) or (name != EMBEDDED and bool(made_by) and made_by != {config.model.name})
    verdicts = {
        key or str((judge or {}).get("judge") or CHOSEN): _parsed(path, _verdicts)
        for key, path in _judges(folder, name)
    }
    return _nothing_judged() | {
        "baseline": baseline,
        "after": _optional(folder.answers(name), _answers) or {},
        "unaligned": unaligned if published else baseline,
        "published": published,
        "verdicts": verdicts,
        "unaligned_verdicts": _optional(folder.unaligned_verdicts(name), _verdicts) or (),
        "judge": judge,
        "canaries": canaries,
        "length_tables": _tables(config) if verdicts else None,
        "scores": _optional(folder.verdicts(name, SCORES), Scores.from_json),
    }


def _conversations(folder: Folder, config: Config, name: str) -> dict[str, Any]:
    """Answers of several turns, joined into one text each, and the marks of both models."""
    asked = _questions(config)
    aligned = _turns(folder.answers(name, turns=True), asked) or {}
    unaligned = _turns(folder.unaligned_answers(name, turns=True), asked) or {}
    path = folder.verdicts(name, turns=True)
    told = read_marks(path).marks if path.is_file() else ()
    marks: dict[Side, tuple[Row, ...]] = {}
    sides: tuple[tuple[Side, Mapping[str, Answer]], ...] = (("aligned", aligned), ("unaligned", unaligned))
    for side, answers in sides:
        models = {answer.generator for answer in answers.values()}
        if rows := tuple((m.question_id, m.turn, m.score) for m in told if m.model in models):
            marks[side] = rows
    categories = categories_of({row[0] for rows in marks.values() for row in rows})
    return {
        "after": aligned,
        "unaligned": unaligned,
        "marks": marks,
        "categories": categories or {question_id(id): dataset for id, (_, dataset) in asked.items() if dataset},
    }


def _questions(config: Config) -> dict[str, tuple[str, str]]:
    """What was asked, all turns, and its data set, by prompt id; empty where the texts cannot be had any more."""
    try:
        prompts = benchmark(config).prompts
    except DataError:
        return {}
    return {prompt.id: ("\n\n".join(prompt.turns), prompt.dataset) for prompt in prompts}


def _turns(path: Path, asked: Mapping[str, tuple[str, str]]) -> dict[str, Answer] | None:
    if not path.is_file():
        return None
    try:
        answers = [_conversation(row, asked) for row in store.read_jsonl(path)]
    except MALFORMED as error:
        raise _not_ours(path, error) from error
    return {answer.prompt_id: answer for answer in answers}


def _conversation(row: Mapping[str, Any], asked: Mapping[str, tuple[str, str]]) -> Answer:
    name = str(row["question_id"])
    text, dataset = asked.get(name, (f"question {name}", official_category(row["question_id"]) or ""))
    return Answer(
        prompt_id=name,
        instruction=text,
        output="\n\n".join(row["choices"][0]["turns"]),
        generator=row["model_id"],
        dataset=dataset,
        n_tokens=row.get("n_tokens", 0),
        finished=row.get("finished", True),
    )


def _tables(config: Config) -> LengthTables | None:
    """Official tables of other bytes are no reason not to report: the length model does without, and says why."""
    try:
        return length_tables(config)
    except DataError as error:
        return LengthTables(None, None, notes=(error.message,))


def _judges(folder: Folder, benchmark: str) -> Iterator[tuple[str, Path]]:
    """Judge and file of every verdict file, the truth first; the one judge that the run chose is called ""."""
    chosen = folder.verdicts(benchmark)
    parent = chosen.parent
    prefix = f"{benchmark}."
    found = [
        (path.name.removeprefix(prefix).removesuffix(".json"), path)
        for path in sorted(parent.glob("*.json"))
        if path.name.startswith(prefix) and path != chosen and not path.name.startswith(".")
    ]
    judges = [(judge, path) for judge, path in found if judge not in BESIDE]
    if chosen.is_file():
        judges.append(("", chosen))
    yield from sorted(judges, key=lambda entry: (entry[0] != TRUTH, entry[0]))


def _rows(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(_mapping(row) for row in value)


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
    except MALFORMED as error:
        raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} does not have the form that this version of trimtab reads: {type(error).__name__}: {error}",
        remedy="delete the file; the stage that made it will make it again",
    )
