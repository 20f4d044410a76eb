"""Judge answers that somebody else's model gave: an official answer file, without a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab import config as configuration
from trimtab import store
from trimtab.commands import winrate
from trimtab.config import Config, to_json
from trimtab.errors import ConfigError
from trimtab.judging import official
from trimtab.judging.answer_files import fastchat_rows, read_model_answers, read_model_outputs
from trimtab.progress import Reporter
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import benchmark, benchmark_name, official_name, texts
from trimtab.runtime.judges import judge_setup
from trimtab.stages import judge


def holds_answers(word: str) -> bool:
    """Whether a word names a file of answers: a JSON list or JSON lines, where a configuration is one object."""
    path = Path(word)
    if not path.is_file() or path.suffix not in {".json", ".jsonl"}:
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return path.suffix == ".jsonl" or file.read(4096).lstrip().startswith("[")


def resolve(file: str, flags: Mapping[str, Any]) -> Config:
    """The configuration of judging only: what `flags` say of benchmark and judge. There is no model and no data."""
    stem = Path(file).name.partition(".")[0]
    tree = configuration.merge({"model": stem, "data": file, "out": f"runs/{stem}-judged"}, flags)
    config = configuration.resolve(tree)
    if config.judge.kind not in ("openai", "reward"):
        raise ConfigError(f"{file} is judged by nobody", remedy="add --judge openai:MODEL or reward:MODEL")
    return config


def main(file: str, config: Config, *, reporter: Reporter) -> dict[str, Any]:
    """Lay the answers down as a run has them, judge them, and summarise; the numbers are those of `winrate`."""
    judge_setup.require(config)
    folder, asked, name = Folder.of(config), benchmark(config), benchmark_name(config)
    assert name is not None
    allowed = config.judge.allow_missing
    if asked.multi_turn:
        said = read_model_answers(Path(file), benchmark=asked, allow_missing=allowed)
    else:
        if not asked.has_baseline:
            raise ConfigError(
                f"benchmark {name} brings no baseline to judge {file} against", remedy="add 'output' to it"
            )
        outputs = read_model_outputs(Path(file), benchmark=asked, allow_missing=allowed)
    with store.locked(folder.root):
        if folder.config.is_file() and store.read_json(folder.config)["data"] != to_json(config)["data"]:
            raise ConfigError(f"{folder.root} holds other answers", remedy="choose another folder with --out")
        store.write_json(folder.config, to_json(config))
        if asked.multi_turn:
            store.write_jsonl(folder.answers(name, turns=True), fastchat_rows(said, tstamp=0.0))
        else:
            store.write_json(folder.answers(name), [one.to_json() for one in outputs])
            baseline = [prompt.baseline_answer().to_json() for prompt in asked.prompts]
            store.write_json(folder.baseline_answers(name), baseline)
        judge.main(config, reporter=reporter)
    judge.refuse_if_incomplete(config)
    verdicts = str(folder.verdicts(name, turns=asked.multi_turn))
    if asked.multi_turn:
        known = official_name(config)
        questions = config.benchmark.name if known is None else str(texts(config).find(official.QUESTIONS).path)
        told = winrate.main(verdicts, kind="mt_bench", questions=questions, allow_missing=allowed)
    else:
        folder_of_texts, offline = config.benchmark.dir, config.offline
        told = winrate.main(verdicts, benchmark_dir=folder_of_texts, offline=offline, allow_missing=allowed)
        told |= {"n_absent": len(asked.prompts) - len(outputs), "n_missing": len(asked.prompts) - told["n_total"]}
    return told | {"out": str(folder.root)}
