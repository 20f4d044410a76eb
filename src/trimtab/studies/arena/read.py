"""Two sides of a comparison by eye: a run's answers, its baseline's, its unaligned model's, or a file of answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from trimtab.config import files
from trimtab.errors import ConfigError, DataError
from trimtab.judging import official
from trimtab.judging.answer_files import read_model_answers
from trimtab.judging.benchmarks import Benchmark, read_benchmark
from trimtab.judging.files import read_objects
from trimtab.judging.official_texts import Source
from trimtab.judging.rows import Place, Row, text_field
from trimtab.runtime.folder import Folder
from trimtab.studies.arena import Match

Key: TypeAlias = str | tuple[str, ...]  # a prompt id, or where there is none the prompt itself
_BASELINE_PART, _UNALIGNED_PART = "baseline", "unaligned"


@dataclass(frozen=True, slots=True)
class SharedPrompts:
    """The prompts that both sides answered, and how many only one did. `names` are never the same."""

    matches: tuple[Match, ...]
    names: tuple[str, str]
    n_one_sided: int


@dataclass(frozen=True, slots=True)
class _Side:
    """A word of the command: `root` is its run folder, None for a file; `part` is "", "baseline" or "unaligned"."""

    word: str
    root: Path | None
    part: str = ""

    def benchmarks(self) -> set[str]:
        """Those that the run has answered."""
        assert self.root is not None
        stems = {file.stem for file in Folder(self.root).answers("x").parent.glob("*.json*")}
        return {stem for stem in stems if not stem.endswith((f".{_BASELINE_PART}", f".{_UNALIGNED_PART}"))}


@dataclass(frozen=True, slots=True)
class _PromptAnswer:
    """One answer, a text a turn."""

    prompt_id: str
    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    generator: str
    dataset: str


def meet(a: str, b: str, *, benchmark: str | None, benchmark_dir: str | None) -> SharedPrompts:
    """Pair the answers of A and B by prompt id, or by the prompt itself where one side brings no ids.

    `benchmark` names the runs' benchmark, or is the file of questions that FastChat answer files leave out;
    `benchmark_dir` may hold the official ones. Raises ConfigError and DataError.
    """
    sides = (_side(a), _side(b))
    name, questions = _benchmark(sides, benchmark), None
    answers: list[list[_PromptAnswer]] = []
    for side in sides:
        path = _path(side, name)
        rows = read_objects(path)
        if "choices" in rows[0][1]:
            questions = questions or _questions(sides, benchmark, benchmark_dir)
            answers.append(_conversations(path, questions))
        else:
            answers.append([_single(row, place=place, fallback=side.word) for place, row in rows])
    return _pair(answers[0], answers[1], words=(a, b))


def _side(word: str) -> _Side:
    path = Path(word)
    if path.is_file():
        return _Side(word, None)
    if path.is_dir():
        return _Side(word, _run(path))
    folder, colon, part = word.rpartition(":")
    if colon and Path(folder).is_dir():
        if part not in {_BASELINE_PART, _UNALIGNED_PART}:
            raise ConfigError(f"{word}: a run has no {part!r}", remedy=f"write {folder}:baseline or {folder}:unaligned")
        return _Side(word, _run(Path(folder)), part)
    raise ConfigError(
        f"no such run folder or file of answers: {word}",
        remedy="name a run folder, RUN:baseline, RUN:unaligned or a model_outputs.json",
    )


def _run(root: Path) -> Path:
    if Folder(root).answers("x").parent.is_dir():
        return root
    if seeds := sorted(path.parent for path in root.glob("seed-*/answers")):
        raise ConfigError(f"{root} holds {len(seeds)} seeds", remedy=f"name one of them, such as {seeds[0]}")
    raise ConfigError(f"{root} has no answers yet", remedy=f"run `trimtab generate {root}` first")


def _benchmark(sides: Sequence[_Side], name: str | None) -> str:
    """The name under which the runs' answers lie; any where both sides are files."""
    runs = [side for side in sides if side.root is not None]
    if name is not None:
        return read_benchmark(Path(name)).name if Path(name).is_file() else name
    if not runs:
        return ""
    common = set.intersection(*(side.benchmarks() for side in runs))
    if len(common) == 1:
        return common.pop()
    by_run = "; ".join(f"{side.word} has {', '.join(sorted(side.benchmarks())) or 'none'}" for side in runs)
    raise ConfigError(
        f"{'several' if common else 'no'} benchmarks were answered by all runs: {by_run}",
        remedy="name one with --benchmark" if common else "let both answer the same benchmark",
    )


def _path(side: _Side, benchmark: str) -> Path:
    if side.root is None:
        return Path(side.word)
    folder = Folder(side.root)
    match side.part:
        case "":
            places = [folder.answers(benchmark), folder.answers(benchmark, turns=True)]
        case "baseline":
            places = [folder.baseline_answers(benchmark)]
        case _:
            places = [folder.unaligned_answers(benchmark), folder.unaligned_answers(benchmark, turns=True)]
            if _baseline_is_unaligned(folder, benchmark):
                places.append(folder.baseline_answers(benchmark))
    for place in places:
        if place.is_file():
            return folder.intact(place)
    raise ConfigError(
        f"{side.word} has no answers to {benchmark} ({places[0]})",
        remedy="see what is in its answers folder, or run `trimtab generate` with benchmark.unaligned on",
    )


def _baseline_is_unaligned(folder: Folder, benchmark: str) -> bool:
    """Where the benchmark brings no baseline of its own, the run's own unaligned model was it."""
    path = folder.baseline_answers(benchmark)
    if not path.is_file() or not folder.config.is_file():
        return False
    config = files.read_file(folder.config)
    own = {config.get("model", {}).get("name"), config.get("generate", {}).get("unaligned_served_as")} - {None}
    return read_objects(path)[0][1].get("generator") in own


def _questions(sides: Sequence[_Side], benchmark: str | None, benchmark_dir: str | None) -> Benchmark:
    """What FastChat's answers answer: the file that was named, the run's own benchmark, or MT-Bench."""
    name, folder = "mt_bench", benchmark_dir
    for side in sides:
        if side.root is not None and Folder(side.root).config.is_file():
            section: dict[str, Any] = files.read_file(Folder(side.root).config).get("benchmark", {})
            name, folder = section.get("name") or name, folder or section.get("dir")
            break
    if benchmark is not None and (benchmark in official.names() or Path(benchmark).is_file()):
        name = benchmark
    if name not in official.names():
        return read_benchmark(Path(name))
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    return official.benchmark(name, source=Source(folder=Path(folder) if folder else None, offline=offline))


def _conversations(path: Path, questions: Benchmark) -> list[_PromptAnswer]:
    prompts = {prompt.id: prompt for prompt in questions.prompts}
    return [
        _PromptAnswer(
            answer.prompt_id,
            prompts[answer.prompt_id].turns,
            answer.turns,
            answer.generator,
            prompts[answer.prompt_id].dataset,
        )
        for answer in read_model_answers(path, benchmark=questions, allow_missing=True)
    ]


def _single(row: Row, *, place: Place, fallback: str) -> _PromptAnswer:
    instruction = text_field(row, "instruction", place=place)
    return _PromptAnswer(
        prompt_id=str(row.get("prompt_id", instruction)),
        prompt=(instruction,),
        answer=(text_field(row, "output", place=place),),
        generator=str(row.get("generator") or fallback),
        dataset=str(row.get("dataset", "")),
    )


def _pair(first: list[_PromptAnswer], second: list[_PromptAnswer], *, words: tuple[str, str]) -> SharedPrompts:
    ids = {answer.prompt_id for answer in first} & {answer.prompt_id for answer in second}
    a, b = (_by_key(answers, word, by_id=bool(ids)) for answers, word in zip((first, second), words, strict=True))
    common = [key for key in a if key in b]
    if not common:
        raise DataError(f"{words[0]} and {words[1]} answer no prompt in common", remedy="compare the same benchmark")
    for key in common:
        if a[key].prompt != b[key].prompt:
            raise DataError(
                f"prompt {a[key].prompt_id!r} of {words[0]} is not what {words[1]} was asked under that name",
                remedy="compare answers to the same version of the benchmark",
            )
    names = first[0].generator, second[0].generator
    if names[0] == names[1]:
        names = f"{names[0]} ({words[0]})", f"{names[1]} ({words[1]})"
    if names[0] == names[1]:
        raise ConfigError(f"{words[0]} and {words[1]} are the same answers", remedy="name two different ones")
    return SharedPrompts(
        tuple(Match(a[key].prompt_id, a[key].prompt, a[key].answer, b[key].answer, a[key].dataset) for key in common),
        names,
        n_one_sided=len(a.keys() ^ b.keys()),
    )


def _by_key(answers: list[_PromptAnswer], word: str, *, by_id: bool) -> dict[Key, _PromptAnswer]:
    by_key: dict[Key, _PromptAnswer] = {}
    for answer in answers:
        key = answer.prompt_id if by_id else answer.prompt
        if key in by_key:
            raise DataError(
                f"{word} answers prompt {answer.prompt_id!r} twice", remedy="keep one answer to each prompt"
            )
        by_key[key] = answer
    return by_key
