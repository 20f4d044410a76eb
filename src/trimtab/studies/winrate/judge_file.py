"""Judge answers that somebody else's model gave: an official answer file, without a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config, to_json
from trimtab.errors import ConfigError
from trimtab.judging import official
from trimtab.judging.answer_files import TurnAnswers, fastchat_rows, read_model_answers, read_model_outputs
from trimtab.judging.benchmarks import Benchmark
from trimtab.progress import Reporter
from trimtab.records import Answer
from trimtab.runtime.folder import Folder
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.run_setup import RunSetup, set_up
from trimtab.stages import judge
from trimtab.studies.winrate import command as winrate
from trimtab.studies.winrate.numbers import Numbers, WinRateNumbers


def holds_answers(word: str) -> bool:
    """Whether a word names a file of answers: a JSON list or JSON lines, where a configuration is one object."""
    path = Path(word)
    if not path.is_file() or path.suffix not in {".json", ".jsonl"}:
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return path.suffix == ".jsonl" or file.read(4096).lstrip().startswith("[")


def resolve(file: str, flags: dict[str, Any]) -> Config:
    """The configuration of judging only: what `flags` say of benchmark and judge. There is no model and no data."""
    stem = Path(file).name.partition(".")[0]
    tree = configuration.merge({"model": stem, "data": file, "out": f"runs/{stem}-judged"}, flags)
    config = configuration.resolve(tree)
    if config.judge.kind not in ("openai", "reward"):
        raise ConfigError(f"{file} is judged by nobody", remedy="add --judge openai:MODEL or reward:MODEL")
    return config


def main(file: str, config: Config, *, reporter: Reporter) -> Numbers:
    """Lay the answers down as a run has them, judge them, and summarise; the numbers are those of `winrate`."""
    setup = set_up(config)
    judge_setup.require(setup)
    folder, prompts, name = setup.folder, setup.benchmark, setup.benchmark_name
    assert name is not None
    answers = _answers(Path(file), prompts, name, allow_missing=config.judge.allow_missing)
    with store.lock(folder.root):
        if folder.config.is_file() and store.read_json(folder.config)["data"]["source"] != config.data.source:
            raise ConfigError(f"{folder.root} holds other answers", remedy="choose another folder with --out")
        store.write_json(folder.config, to_json(config))
        _write(answers, prompts, folder, name)
        judge.main(setup, reporter=reporter)
    judge.refuse_if_incomplete(setup)
    numbers = _summarise(setup, name)
    if isinstance(numbers, WinRateNumbers):
        n_all = len(prompts.prompts)
        n_judged = numbers.summary.raw.n_total
        numbers = replace(numbers, n_absent=n_all - len(answers), n_missing=n_all - n_judged)
    return replace(numbers, out=folder.root, alarms=_alarms(folder, name))


def _answers(path: Path, prompts: Benchmark, name: str, *, allow_missing: bool) -> list[TurnAnswers] | list[Answer]:
    if prompts.multi_turn:
        return list(read_model_answers(path, benchmark=prompts, allow_missing=allow_missing))
    if not prompts.has_baseline:
        raise ConfigError(f"benchmark {name} brings no baseline to judge {path} against", remedy="add 'output' to it")
    return list(read_model_outputs(path, benchmark=prompts, allow_missing=allow_missing))


def _write(answers: list[TurnAnswers] | list[Answer], prompts: Benchmark, folder: Folder, name: str) -> None:
    turns = [answer for answer in answers if isinstance(answer, TurnAnswers)]
    if prompts.multi_turn:
        store.write_jsonl(folder.answers(name, turns=True), fastchat_rows(turns, tstamp=0.0))
        return
    store.write_json(folder.answers(name), [answer.to_json() for answer in answers if isinstance(answer, Answer)])
    store.write_json(folder.baseline_answers(name), [prompt.baseline_answer().to_json() for prompt in prompts.prompts])


def _alarms(folder: Folder, name: str) -> tuple[str, ...]:
    """What the judge's canaries rang for; nothing where there were none."""
    path = folder.canaries(name)
    entries = store.read_json(folder.intact(path)) if path.is_file() else []
    return tuple(row["sentence"] for entry in entries for row in entry.get("canaries", ()) if row["alarm"])


def _summarise(setup: RunSetup, name: str) -> Numbers:
    config, multi_turn = setup.config, setup.benchmark.multi_turn
    file, allow_missing = str(setup.folder.verdicts(name, turns=multi_turn)), config.judge.allow_missing
    if not multi_turn:
        return winrate.main(
            file, benchmark_dir=config.benchmark.dir, offline=config.offline, allow_missing=allow_missing
        )
    questions = config.benchmark.name
    if setup.official_benchmark is not None:
        questions = str(setup.texts.find(official.QUESTIONS).path)
    return winrate.main(file, kind="mt_bench", questions=questions, allow_missing=allow_missing)
