"""What a report reads: the artefacts of one run, each of which may be absent.

Absent is not zero: a missing file becomes None and is reported in words. A file that is there and cannot be read is an
error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from trimtab import store, windtunnel
from trimtab.analysis.marks import Question, Row, categories_of, official_category
from trimtab.analysis.outlook import Outlook
from trimtab.analysis.selection import MilestoneNumbers
from trimtab.errors import DataError, StoreError
from trimtab.judging.answer_files import question_id
from trimtab.judging.mt_bench import read_marks
from trimtab.judging.official import LengthTables
from trimtab.records import Answer, Pair, Verdict
from trimtab.reporting.judges import JudgeCanary, canaries_of
from trimtab.reporting.metrics import Metrics
from trimtab.runtime.benchmark_prompts import length_tables
from trimtab.runtime.folder import Folder
from trimtab.runtime.judges.judge_record import JudgeRecord
from trimtab.runtime.run_setup import RunSetup

TRUTH = "oracle"
SCORES = "scores"
CHOSEN = "judge"
NO_JUDGE = frozenset({SCORES, "unaligned", "canaries", "judge"})  # files beside verdicts that are no judge's
FORMAT_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError)

Side = Literal["aligned", "unaligned"]
SIDES: tuple[Side, ...] = ("aligned", "unaligned")

T = TypeVar("T")
Answers: TypeAlias = Mapping[str, Answer]
"""By prompt id, in the benchmark's order."""


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
class Heldout:
    """Reward gaps in nats by id of the held-out pair, before training (None: not known) and after. Of unpaired rows
    `labels` says which are good, and a gap is the reward, with its sign turned for a bad one; None of pairs."""

    before: Mapping[str, float] | None
    after: Mapping[str, float]
    labels: Mapping[str, bool] | None = None
    losses: Mapping[str, Mapping[str, float]] | None = None
    """By phase, `before` and `after`: each row's loss. None where the record has none."""

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Heldout | None:
        """None where the pairs were not looked at after training."""
        gaps = {
            phase: None if tree.get(phase) is None else dict(zip(tree["ids"], tree[phase]["reward_gaps"], strict=True))
            for phase in ("before", "after")
        }
        if gaps["after"] is None:
            return None
        labels = tree["after"].get("labels")
        by_id = None if labels is None else dict(zip(tree["ids"], labels, strict=True))
        phases = [phase for phase in ("before", "after") if "losses" in (tree.get(phase) or {})]
        losses = {phase: dict(zip(tree["ids"], tree[phase]["losses"], strict=True)) for phase in phases}
        return cls(gaps["before"], gaps["after"], by_id, losses if len(losses) == 2 else None)


@dataclass(frozen=True, slots=True)
class PairFacts:
    """A held-out pair beside its rewards: characters of its responses, and how much better in truth the chosen one is,
    in the wind tunnel."""

    chosen_characters: int
    rejected_characters: int
    quality_gap: float | None

    @classmethod
    def of(cls, pair: Pair) -> PairFacts:
        meta = dict(pair.meta)
        has_truth = {"quality_chosen", "quality_rejected"} <= meta.keys()
        gap = float(meta["quality_chosen"]) - float(meta["quality_rejected"]) if has_truth else None
        return cls(len(pair.chosen), len(pair.rejected), gap)


@dataclass(frozen=True, slots=True)
class Screening:
    """Counts of `screening.json`; None where the run did not count them."""

    mode: str | None = None
    responses_screened: int | None = None
    promoted: int | None = None
    shrunk_visits: int | None = None
    rechecked: int | None = None
    missed: int | None = None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Screening:
        names = ("responses_screened", "promoted", "shrunk_visits", "rechecked", "missed")
        counts = {name: tree.get(name) for name in names}
        return cls(tree.get("mode"), **{name: n for name, n in counts.items() if isinstance(n, int)})


@dataclass(frozen=True, slots=True)
class Selection:
    """`selection.json`: which milestone is the model, why, and what held-out pairs said of each.

    `warning` and `early_end` (before its planned last step, and by whom) are None also where an older version wrote the
    file, which had none.
    """

    picked: int
    last: int
    why: str
    rule: str
    drift_note: str | None
    warning: str | None
    early_end: str | None
    lost: tuple[int, ...]
    milestones: tuple[MilestoneNumbers, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Selection:
        return cls(
            tree["picked"], tree["last"], tree["why"], tree["rule"], tree["drift_note"], tree.get("warning"),
            tree.get("early_end"), tuple(tree["lost"]),
            tuple(MilestoneNumbers.from_json(row) for row in tree["milestones"]), tree,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outlooks:
    """`outlook.json`: what the run was heading for after its first steps, and where it was after the last."""

    early: Outlook | None
    final: Outlook | None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Outlooks:
        early, final = (None if tree[name] is None else Outlook.from_json(tree[name]) for name in ("early", "final"))
        return cls(early, final)


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's artefacts. Answers are by prompt id, in the benchmark's order.

    `baseline` is what the verdicts are against: the unaligned model, or, where the benchmark publishes answers,
    another's (`published`); `unaligned` is the unaligned model's in any case, empty where it did not answer.
    `verdicts` are by judge, the truth first; `unaligned_verdicts` are the chosen judge's on the unaligned model against
    a published baseline. `marks` are (question, turn, mark) of the aligned and the unaligned model, where a judge
    marked single answers. `judge` is the run's record of who judged, with what, at what cost. `edited` names the
    answers and verdicts that someone changed after their stage. `pair_facts` are by id of the held-out pair, of reward
    models alone. `plan`, `versions` and `audit` are the files as they
    are: the report prints them.
    """

    root: Path
    seed: int
    benchmark: str | None
    plan: Mapping[str, Any] | None
    versions: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    metrics: Metrics
    heldout: Heldout | None
    screening: Screening | None
    selection: Selection | None
    edited: tuple[str, ...]
    outlooks: Outlooks | None = None
    pair_facts: Mapping[str, PairFacts] = field(default_factory=dict)
    baseline: Answers = field(default_factory=dict)
    after: Answers = field(default_factory=dict)
    unaligned: Answers = field(default_factory=dict)
    published: bool = False
    verdicts: Mapping[str, tuple[Verdict, ...]] = field(default_factory=dict)
    unaligned_verdicts: tuple[Verdict, ...] = ()
    marks: Mapping[Side, tuple[Row, ...]] = field(default_factory=dict)
    categories: Mapping[Question, str] = field(default_factory=dict)
    judge: JudgeRecord | None = None
    canaries: tuple[JudgeCanary, ...] = ()
    length_tables: LengthTables | None = None
    scores: Scores | None = None

    @property
    def before(self) -> Answers:
        """What the aligned model's answers are shown beside: the unaligned model's, else the baseline's."""
        return self.unaligned or self.baseline


def read(folder: Folder, setup: RunSetup) -> Run:
    """Everything there is in one run folder."""
    name = setup.benchmark_name
    run = Run(
        root=folder.root,
        seed=setup.config.seed,
        benchmark=name,
        plan=_optional(folder.plan, _json_object),
        versions=_optional(folder.versions, _json_object),
        audit=_optional(folder.data / "audit.json", _json_object),
        metrics=Metrics(tuple(store.read_jsonl(folder.metrics)) if folder.metrics.is_file() else ()),
        heldout=_optional(folder.heldout, Heldout.from_json),
        screening=_optional(folder.screening, Screening.from_json),
        selection=_optional(folder.selection, Selection.from_json),
        outlooks=_optional(folder.outlook, Outlooks.from_json),
        edited=tuple(folder.edited_files()),
    )
    if setup.objective.on_scores and run.heldout is not None:
        run = replace(run, pair_facts=_pair_facts(folder.data / "pairs.jsonl", run.heldout))
    if name is None:
        return run
    run = replace(
        run,
        judge=_optional(folder.judge(name), JudgeRecord.from_json),
        canaries=_optional(folder.canaries(name), canaries_of) or (),
    )
    if folder.answers(name, turns=True).is_file():
        return _with_conversations(run, folder, setup, name)
    return _with_answers(run, folder, setup, name)


def check(folder: Folder, parse: Callable[[Any], T]) -> T | None:
    """What `trimtab check` left in the run's own folder; None where it was not asked."""
    return _optional(folder.check, parse)


def files(folder: Folder, setup: RunSetup) -> list[Path]:
    """The files that `read` would read and that are there, in a fixed order: what a report is made from."""
    name = setup.benchmark_name
    paths = [folder.plan, folder.versions, folder.data / "audit.json", folder.metrics, folder.heldout]
    paths += [folder.screening, folder.selection, folder.outlook]
    paths += [folder.data / "pairs.jsonl"] if setup.objective.on_scores else []
    if name is not None:
        paths += [folder.baseline_answers(name)]
        paths += [of(name, turns=turns) for turns in (False, True) for of in (folder.answers, folder.unaligned_answers)]
        paths += [path for _, path in _judges(folder, name)] + [folder.verdicts(name, SCORES)]
        paths += [folder.verdicts(name, turns=True), folder.unaligned_verdicts(name)]
        paths += [folder.canaries(name), folder.judge(name)]
    return [path for path in paths if path.is_file()]


def _with_answers(run: Run, folder: Folder, setup: RunSetup, name: str) -> Run:
    """Answers of one turn and the verdicts on them."""
    baseline = _optional(folder.baseline_answers(name), _answers) or {}
    unaligned = _optional(folder.unaligned_answers(name), _answers) or {}
    is_published = bool(unaligned) or _is_of_another(baseline, setup)
    chosen = run.judge.identity.judge if run.judge is not None and run.judge.identity.judge else CHOSEN
    verdicts = {judge or chosen: _parse(path, _verdicts) for judge, path in _judges(folder, name)}
    return replace(
        run,
        baseline=baseline,
        after=_optional(folder.answers(name), _answers) or {},
        unaligned=unaligned if is_published else baseline,
        published=is_published,
        verdicts=verdicts,
        unaligned_verdicts=_optional(folder.unaligned_verdicts(name), _verdicts) or (),
        length_tables=_tables(setup) if verdicts else None,
        scores=_optional(folder.verdicts(name, SCORES), Scores.from_json),
    )


def _is_of_another(baseline: Answers, setup: RunSetup) -> bool:
    """Whether a benchmark brought these answers: they are not by the model that is trained, as in the wind tunnel."""
    generators = {answer.generator for answer in baseline.values()}
    return setup.benchmark_name != windtunnel.NAME and generators not in (set(), {setup.config.model.name})


def _with_conversations(run: Run, folder: Folder, setup: RunSetup, name: str) -> Run:
    """Answers of several turns, joined into one text each, and the marks of both models."""
    questions = _questions(setup)
    aligned = _conversations(folder.answers(name, turns=True), questions)
    unaligned = _conversations(folder.unaligned_answers(name, turns=True), questions)
    path = folder.verdicts(name, turns=True)
    all_marks = read_marks(path).marks if path.is_file() else ()
    marks: dict[Side, tuple[Row, ...]] = {}
    for side, answers in zip(SIDES, (aligned, unaligned), strict=True):
        models = {answer.generator for answer in answers.values()}
        if rows := tuple((m.question_id, m.turn, m.score) for m in all_marks if m.model in models):
            marks[side] = rows
    official = categories_of({row[0] for rows in marks.values() for row in rows})
    own = {question_id(id): dataset for id, (_, dataset) in questions.items() if dataset}
    return replace(run, after=aligned, unaligned=unaligned, marks=marks, categories=official or own)


def _questions(setup: RunSetup) -> dict[str, tuple[str, str]]:
    """All turns of every question, and its data set, by prompt id; empty where the texts cannot be had any more."""
    try:
        prompts = setup.benchmark.prompts
    except DataError:
        return {}
    return {prompt.id: ("\n\n".join(prompt.turns), prompt.dataset) for prompt in prompts}


def _conversations(path: Path, questions: Mapping[str, tuple[str, str]]) -> Answers:
    if not path.is_file():
        return {}
    try:
        answers = [_conversation(row, questions) for row in store.read_jsonl(path)]
    except FORMAT_ERRORS as error:
        raise _not_ours(path, error) from error
    return {answer.prompt_id: answer for answer in answers}


def _conversation(row: Mapping[str, Any], questions: Mapping[str, tuple[str, str]]) -> Answer:
    name = str(row["question_id"])
    text, dataset = questions.get(name, (f"question {name}", official_category(row["question_id"]) or ""))
    return Answer(
        prompt_id=name,
        instruction=text,
        output="\n\n".join(row["choices"][0]["turns"]),
        generator=row["model_id"],
        dataset=dataset,
        n_tokens=row.get("n_tokens", 0),
        finished=row.get("finished", True),
    )


def _tables(setup: RunSetup) -> LengthTables | None:
    """Official tables of other bytes are no reason not to report: the length model does without, and says why."""
    try:
        return length_tables(setup.official_benchmark, source=setup.texts)
    except DataError as error:
        return LengthTables(None, None, notes=(error.message,))


def _pair_facts(path: Path, heldout: Heldout) -> dict[str, PairFacts]:
    try:
        pairs = (Pair.from_json(row) for row in store.iter_jsonl(path))
        return {pair.id: PairFacts.of(pair) for pair in pairs if pair.id in heldout.after}
    except FORMAT_ERRORS as error:
        raise _not_ours(path, error) from error


def _judges(folder: Folder, benchmark: str) -> Iterator[tuple[str, Path]]:
    """Judge and file of every verdict file, the truth first; the one judge that the run chose is called ""."""
    chosen = folder.verdicts(benchmark)
    prefix = f"{benchmark}."
    named_files = [
        (path.name.removeprefix(prefix).removesuffix(".json"), path)
        for path in sorted(chosen.parent.glob("*.json"))
        if path.name.startswith(prefix) and path != chosen and not path.name.startswith(".")
    ]
    judges = [(judge, path) for judge, path in named_files if judge not in NO_JUDGE]
    if chosen.is_file():
        judges.append(("", chosen))
    yield from sorted(judges, key=lambda entry: (entry[0] != TRUTH, entry[0]))


def _answers(rows: Sequence[Mapping[str, Any]]) -> Answers:
    answers = [Answer.from_json(row) for row in rows]
    return {answer.prompt_id: answer for answer in answers}


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> tuple[Verdict, ...]:
    return tuple(Verdict.from_json(row) for row in rows)


def _json_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _optional(path: Path, parse: Callable[[Any], T]) -> T | None:
    return _parse(path, parse) if path.is_file() else None


def _parse(path: Path, parse: Callable[[Any], T]) -> T:
    value = store.read_json(path)
    try:
        return parse(value)
    except FORMAT_ERRORS as error:
        raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} does not have the form that this version of trimtab reads: {type(error).__name__}: {error}",
        remedy="delete the file; the stage that made it will make it again",
    )
