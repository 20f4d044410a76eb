"""What a word of `compare` stands for: a run, its unaligned model, or one model in a file of judgments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands.winrate import kind_of
from trimtab.errors import ConfigError
from trimtab.judging.annotations import read_annotations
from trimtab.judging.mt_bench import Mark, read_marks
from trimtab.records import Verdict
from trimtab.runtime.folder import Folder

TRUTH = "oracle"
UNALIGNED = "unaligned"
BESIDE = frozenset({"scores", "canaries", "judge"})  # what lies beside verdicts and is none


@dataclass(frozen=True, slots=True)
class Judged:
    """One side: verdicts or marks by training seed (0 where a file is no run), never both.

    `lengths` are characters of the answers to each question of a marked run, where the run has them.
    `asked` is what the judge was asked with, from the run's own record; empty for a file.
    """

    name: str
    verdicts: Mapping[int, Sequence[Verdict]] = field(default_factory=dict)
    marks: Mapping[int, Sequence[Mark]] = field(default_factory=dict)
    lengths: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.verdicts or self.marks)


@dataclass(frozen=True, slots=True)
class _Set:
    """A file of verdicts in a run folder. `judge` is its name there, "" for the one that the configuration chose."""

    path: Path
    benchmark: str
    judge: str


def read(word: str, *, benchmark: str | None, judge: str | None) -> Judged:
    """The judgments that `word` names. Raises ConfigError when they are not there, or are not one set."""
    path, who = _split(word)
    if path.is_file():
        return _of_file(word, path, who, judge=judge)
    if who not in ("", UNALIGNED):
        raise ConfigError(f"{word}: a run has no {who!r}", remedy=f"write {path} or {path}:{UNALIGNED}")
    single = _of_run(word, path, 0, who=who, benchmark=benchmark, judge=judge)
    if single is not None:
        return single
    sides = {
        seed: _of_run(word, folder, seed, who=who, benchmark=benchmark, judge=judge)
        for seed, folder in _seed_folders(path).items()
    }
    found = [side for side in sides.values() if side is not None]
    if not found or len(found) < len(sides):
        raise ConfigError(f"{word} has no verdicts", remedy="run `trimtab judge` on it first")
    return _pooled(word, found)


def _split(word: str) -> tuple[Path, str]:
    """Path and what comes after a last colon, which a path may hold itself."""
    if Path(word).exists():
        return Path(word), ""
    name, colon, who = word.rpartition(":")
    if colon and Path(name).exists():
        return Path(name), who
    raise ConfigError(f"no such run folder or file of judgments: {word}", remedy="name one that is there")


def _seed_folders(path: Path) -> dict[int, Path]:
    """Folders of the single runs that were pooled, by seed."""
    found = {folder.name.removeprefix("seed-"): folder for folder in sorted(path.glob("seed-*")) if folder.is_dir()}
    return {int(seed): found[seed] for seed in sorted(found, key=lambda s: (len(s), s)) if seed.isdigit()}


def _pooled(word: str, found: Sequence[Judged]) -> Judged:
    return Judged(
        word,
        verdicts={seed: rows for side in found for seed, rows in side.verdicts.items()},
        marks={seed: rows for side in found for seed, rows in side.marks.items()},
        lengths={seed: lengths for side in found for seed, lengths in side.lengths.items()},
        asked=found[0].asked,
    )


# --- files -----------------------------------------------------------------------------------------------------------


def _of_file(word: str, path: Path, who: str, *, judge: str | None) -> Judged:
    if kind_of(path) == "mt_bench":
        marks = _only(read_marks(path).marks, word, who, judge, model=lambda m: m.model, by=lambda m: m.judge)
        return Judged(word, marks={0: marks})
    rows = read_annotations(path).verdicts
    verdicts = _only(rows, word, who, judge, model=lambda v: v.generator_2, by=lambda v: v.annotator)
    return Judged(word, verdicts={0: verdicts})


def _only(
    rows: Sequence[Any],
    word: str,
    who: str,
    judge: str | None,
    *,
    model: Callable[[Any], str],
    by: Callable[[Any], str],
) -> list[Any]:
    """The rows of one model by one judge. Raises ConfigError when more are left, or none."""
    kept = [row for row in rows if (not who or model(row) == who) and (judge is None or by(row) == judge)]
    if not kept:
        models, judges = sorted({model(row) for row in rows}), sorted({by(row) or "(unnamed)" for row in rows})
        raise ConfigError(
            f"{word} holds {', '.join(models)}, judged by {', '.join(judges)}; not what was asked for",
            remedy="name one of them: FILE:MODEL, --judge NAME",
        )
    names = sorted({model(row) for row in kept})
    if len(names) > 1:
        raise ConfigError(
            f"{word} holds {len(names)} models: {', '.join(names)}", remedy=f"name one, such as {word}:{names[0]}"
        )
    judges = sorted({by(row) for row in kept})
    if len(judges) > 1:
        raise ConfigError(f"{word} holds {len(judges)} judges: {', '.join(judges)}", remedy="name one with --judge")
    return kept


# --- run folders -----------------------------------------------------------------------------------------------------


def _of_run(word: str, root: Path, seed: int, *, who: str, benchmark: str | None, judge: str | None) -> Judged | None:
    """One run's judgments; None where the folder has no verdicts at all."""
    sets = _sets(root)
    if not sets:
        return None
    chosen = _chosen(word, sets, benchmark=benchmark, judge=judge)
    folder = Folder(root)
    record = folder.judge(chosen.benchmark)
    asked = store.read_json(folder.intact(record)) if record.is_file() and not chosen.judge else {}
    if chosen.path.suffix == ".jsonl":
        return _marked(word, folder, chosen, seed, who=who, asked=asked)
    path = chosen.path
    if who == UNALIGNED:
        path = folder.unaligned_verdicts(chosen.benchmark)
        if chosen.judge or not path.is_file():
            raise ConfigError(
                f"{word}: the unaligned model was not judged apart; it is what the aligned model is judged against",
                remedy=f"`trimtab winrate {chosen.path}` says how the two compare",
            )
    return Judged(word, verdicts={seed: read_annotations(folder.intact(path)).verdicts}, asked=asked)


def _marked(word: str, folder: Folder, chosen: _Set, seed: int, *, who: str, asked: Mapping[str, Any]) -> Judged:
    marks = read_marks(folder.intact(chosen.path)).marks
    answers = (
        folder.unaligned_answers(chosen.benchmark, turns=True)
        if who == UNALIGNED
        else folder.answers(chosen.benchmark, turns=True)
    )
    if not answers.is_file():
        raise ConfigError(f"{word}: {answers} is not there", remedy="run `trimtab generate` on that run first")
    rows = store.read_jsonl(folder.intact(answers))
    model = rows[0]["model_id"]
    lengths = {str(row["question_id"]): float(sum(len(turn) for turn in row["choices"][0]["turns"])) for row in rows}
    own = [mark for mark in marks if mark.model == model]
    if not own:
        raise ConfigError(f"{word}: {chosen.path} has no marks of {model}", remedy="run `trimtab judge` on it again")
    return Judged(word, marks={seed: own}, lengths={seed: lengths}, asked=asked)


def _sets(root: Path) -> list[_Set]:
    parent = Folder(root).verdicts("x").parent
    found = []
    for path in sorted((*parent.glob("*.json"), *parent.glob("*.jsonl"))):
        benchmark, _, judge = path.stem.partition(".")
        if judge not in BESIDE and judge != UNALIGNED and benchmark:
            found.append(_Set(path, benchmark, judge))
    return found


def _chosen(word: str, sets: Sequence[_Set], *, benchmark: str | None, judge: str | None) -> _Set:
    """The one set that is asked for: the truth where it is known, else the judge that the run chose."""
    of_benchmark = [one for one in sets if benchmark is None or one.benchmark == benchmark]
    left = [one for one in of_benchmark if judge is None or one.judge == judge]
    if judge is not None and not left:
        left = [one for one in of_benchmark if not one.judge and _judge_of(one) == judge]
    if judge is None:
        truths = [one for one in left if one.judge == TRUTH]
        left = truths or [one for one in left if not one.judge] or left
    if len(left) != 1:
        names = ", ".join(one.path.name for one in sets)
        raise ConfigError(
            f"{word} has {len(left)} sets of verdicts of that name; it has {names}",
            remedy="name one with --benchmark and --judge",
        )
    return left[0]


def _judge_of(one: _Set) -> str:
    if one.path.suffix == ".jsonl":
        return read_marks(one.path).marks[0].judge
    return read_annotations(one.path).verdicts[0].annotator
