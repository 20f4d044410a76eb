"""What a word of `compare` stands for: a run, its unaligned model, or one model in a file of judgments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from trimtab import store
from trimtab.errors import ConfigError
from trimtab.judging.annotations import read_annotations
from trimtab.judging.mt_bench import Mark, read_marks
from trimtab.records import Verdict
from trimtab.runtime.folder import Folder
from trimtab.studies.winrate.read import kind_of

RowType = TypeVar("RowType", Verdict, Mark)

TRUTH = "oracle"
UNALIGNED_MODEL = "unaligned"
NOT_VERDICTS = frozenset(
    {"scores", "canaries", "judge", UNALIGNED_MODEL}
)  # second words of files beside a run's verdicts
JUDGE_KEYS = ("judge", "model", "rubric", "prompt_sha256", "order")  # of a run's record; a number stands for all five


@dataclass(frozen=True, slots=True)
class Judgments:
    """One side: verdicts or marks by training seed (0 where a file is no run), never both.

    `lengths` are characters of the answers to each question of a marked run, where the run has them. `judge_record`
    is what the judge was given, by `JUDGE_KEYS`, from the run's own record; empty for a file.
    """

    name: str
    verdicts: Mapping[int, Sequence[Verdict]] = field(default_factory=dict)
    marks: Mapping[int, Sequence[Mark]] = field(default_factory=dict)
    lengths: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    judge_record: tuple[tuple[str, object], ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.verdicts or self.marks)

    def only_seeds(self, seeds: Sequence[int]) -> Judgments:
        """The runs of these seeds, in this order."""
        return replace(
            self,
            verdicts={seed: self.verdicts[seed] for seed in seeds if seed in self.verdicts},
            marks={seed: self.marks[seed] for seed in seeds if seed in self.marks},
            lengths={seed: self.lengths[seed] for seed in seeds if seed in self.lengths},
        )


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A file of verdicts in a run folder. `judge` is its name there, "" for the one that the configuration chose."""

    path: Path
    benchmark: str
    judge: str

    @property
    def annotator(self) -> str:
        """The judge's name in the rows."""
        if self.path.suffix == ".jsonl":
            return read_marks(self.path).marks[0].judge
        return read_annotations(self.path).verdicts[0].annotator


def read(word: str, *, benchmark: str | None, judge: str | None) -> Judgments:
    """The judgments that `word` names. Raises ConfigError when they are not there, or are not one set."""
    path, model = _split(word)
    if path.is_file():
        return _of_file(word, path, model, judge=judge)
    if model not in ("", UNALIGNED_MODEL):
        raise ConfigError(f"{word}: a run has no {model!r}", remedy=f"write {path} or {path}:{UNALIGNED_MODEL}")
    of_unaligned = model == UNALIGNED_MODEL
    single = _of_run(word, path, 0, of_unaligned=of_unaligned, benchmark=benchmark, judge=judge)
    if single is not None:
        return single
    runs = {
        seed: _of_run(word, folder, seed, of_unaligned=of_unaligned, benchmark=benchmark, judge=judge)
        for seed, folder in _seed_folders(path).items()
    }
    judged_runs = [run for run in runs.values() if run is not None]
    if not judged_runs or len(judged_runs) < len(runs):
        raise _no_verdicts(word, path)
    return _pool(word, judged_runs)


def _no_verdicts(word: str, path: Path) -> ConfigError:
    if Folder(path).config.is_file():
        return ConfigError(f"{word} has no verdicts", remedy="run `trimtab judge` on it first")
    return ConfigError(
        f"{word} has no verdicts, and is no run folder: it has no config.json",
        remedy="name a run or a file of judgments",
    )


def _pool(word: str, runs: Sequence[Judgments]) -> Judgments:
    """The judgments of several seeds as one set."""
    return Judgments(
        word,
        verdicts={seed: rows for run in runs for seed, rows in run.verdicts.items()},
        marks={seed: rows for run in runs for seed, rows in run.marks.items()},
        lengths={seed: lengths for run in runs for seed, lengths in run.lengths.items()},
        judge_record=runs[0].judge_record,
    )


def _split(word: str) -> tuple[Path, str]:
    """Path and what comes after a last colon, which a path may hold itself."""
    if Path(word).exists():
        return Path(word), ""
    name, colon, model = word.rpartition(":")
    if colon and Path(name).exists():
        return Path(name), model
    raise ConfigError(f"no such run folder or file of judgments: {word}", remedy="name one that is there")


def _seed_folders(path: Path) -> dict[int, Path]:
    """Folders of the single runs that were pooled, by seed."""
    folders = {folder.name.removeprefix("seed-"): folder for folder in path.glob("seed-*") if folder.is_dir()}
    return dict(sorted((int(name), folder) for name, folder in folders.items() if name.isdigit()))


# --- files -----------------------------------------------------------------------------------------------------------


def _of_file(word: str, path: Path, model: str, *, judge: str | None) -> Judgments:
    if kind_of(path) == "mt_bench":
        marks = _single_set(
            read_marks(path).marks, word, model, judge, model_of=lambda m: m.model, judge_of=lambda m: m.judge
        )
        return Judgments(word, marks={0: marks})
    verdicts = _single_set(
        read_annotations(path).verdicts,
        word,
        model,
        judge,
        model_of=lambda v: v.generator_2,
        judge_of=lambda v: v.annotator,
    )
    return Judgments(word, verdicts={0: verdicts})


def _single_set(
    rows: Sequence[RowType],
    word: str,
    model: str,
    judge: str | None,
    *,
    model_of: Callable[[RowType], str],
    judge_of: Callable[[RowType], str],
) -> list[RowType]:
    """The rows of one model by one judge. Raises ConfigError when more are left, or none."""
    matches = [row for row in rows if model in ("", model_of(row)) and judge in (None, judge_of(row))]
    if not matches:
        models = sorted({model_of(row) for row in rows})
        judges = sorted({judge_of(row) or "(unnamed)" for row in rows})
        raise ConfigError(
            f"{word} holds {', '.join(models)}, judged by {', '.join(judges)}; not what was asked for",
            remedy="name one of them: FILE:MODEL, --judge NAME",
        )
    models, judges = (sorted({name_of(row) for row in matches}) for name_of in (model_of, judge_of))
    if len(models) > 1:
        raise ConfigError(
            f"{word} holds {len(models)} models: {', '.join(models)}", remedy=f"name one, such as {word}:{models[0]}"
        )
    if len(judges) > 1:
        raise ConfigError(f"{word} holds {len(judges)} judges: {', '.join(judges)}", remedy="name one with --judge")
    return matches


# --- run folders -----------------------------------------------------------------------------------------------------


def _of_run(
    word: str, root: Path, seed: int, *, of_unaligned: bool, benchmark: str | None, judge: str | None
) -> Judgments | None:
    """One run's judgments; None where the folder has no verdicts at all."""
    files = _verdict_files(root)
    if not files:
        return None
    chosen = _choose(word, files, benchmark=benchmark, judge=judge)
    folder = Folder(root)
    record = _judge_record(folder, chosen)
    if chosen.path.suffix == ".jsonl":
        return replace(_marks_of_run(word, folder, chosen, seed, of_unaligned=of_unaligned), judge_record=record)
    path = chosen.path
    if of_unaligned:
        path = folder.unaligned_verdicts(chosen.benchmark)
        if chosen.judge or not path.is_file():
            raise ConfigError(
                f"{word}: the unaligned model was not judged apart; it is what the aligned model is judged against",
                remedy=f"`trimtab winrate {chosen.path}` says how the two compare",
            )
    return Judgments(word, verdicts={seed: read_annotations(folder.intact(path)).verdicts}, judge_record=record)


def _judge_record(folder: Folder, file: VerdictFile) -> tuple[tuple[str, object], ...]:
    """A run records what the judge of its configuration was given, and nothing of the embedded world's judges."""
    path = folder.judge(file.benchmark)
    if file.judge or not path.is_file():
        return ()
    record = store.read_json(folder.intact(path))
    return tuple((key, record.get(key)) for key in JUDGE_KEYS) if record else ()


def _marks_of_run(word: str, folder: Folder, file: VerdictFile, seed: int, *, of_unaligned: bool) -> Judgments:
    """Both models' marks lie in one file; the answers say which name is whose."""
    of_model = folder.unaligned_answers if of_unaligned else folder.answers
    answers = of_model(file.benchmark, turns=True)
    if not answers.is_file():
        raise ConfigError(f"{word}: {answers} is not there", remedy="run `trimtab generate` on that run first")
    rows = store.read_jsonl(folder.intact(answers))
    model = rows[0]["model_id"]
    lengths = {str(row["question_id"]): float(sum(len(turn) for turn in row["choices"][0]["turns"])) for row in rows}
    marks = [mark for mark in read_marks(folder.intact(file.path)).marks if mark.model == model]
    if not marks:
        raise ConfigError(f"{word}: {file.path} has no marks of {model}", remedy="run `trimtab judge` on it again")
    return Judgments(word, marks={seed: marks}, lengths={seed: lengths})


def _verdict_files(root: Path) -> list[VerdictFile]:
    parent = Folder(root).verdicts("x").parent
    files = []
    for path in sorted((*parent.glob("*.json"), *parent.glob("*.jsonl"))):
        benchmark, _, judge = path.stem.partition(".")
        if judge not in NOT_VERDICTS and benchmark:
            files.append(VerdictFile(path, benchmark, judge))
    return files


def _choose(word: str, files: Sequence[VerdictFile], *, benchmark: str | None, judge: str | None) -> VerdictFile:
    """The only file of this benchmark and judge. Raises ConfigError where there are several, or none."""
    of_benchmark = [file for file in files if benchmark in (None, file.benchmark)]
    candidates = _by_default_judge(of_benchmark) if judge is None else _by_judge(of_benchmark, judge)
    if len(candidates) != 1:
        names = ", ".join(file.path.name for file in files)
        raise ConfigError(
            f"{word} has {len(candidates)} sets of verdicts of that name; it has {names}",
            remedy="name one with --benchmark and --judge",
        )
    return candidates[0]


def _by_default_judge(files: Sequence[VerdictFile]) -> Sequence[VerdictFile]:
    """The truth where it is known, else the judge that the run chose, else all."""
    truths = [file for file in files if file.judge == TRUTH]
    return truths or [file for file in files if not file.judge] or files


def _by_judge(files: Sequence[VerdictFile], judge: str) -> Sequence[VerdictFile]:
    """By its name in the folder; the run's own judge has none there and is known by its rows."""
    by_folder_name = [file for file in files if file.judge == judge]
    return by_folder_name or [file for file in files if not file.judge and file.annotator == judge]
