"""A first recipe: model, pairs and machine in, a commented TOML file out, and what a run of it will cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimtab import config, objectives, store
from trimtab.config.files import read_file, toml_value
from trimtab.config.flags import setting
from trimtab.errors import ConfigError, TrimtabError
from trimtab.progress import Reporter

Machine = Literal["cpu", "gpu"]

Line = tuple[str, object, str]  # key, value, what it means
_QUESTION = """\
# Did it help? Answers before and after, to prompts of your own (a text file, one a line), alpaca_eval or mt_bench:
#benchmark = "my-prompts.txt"
#judge = "openai:gpt-4o-mini"  # or reward:MODEL; --base-url names a server of your own, --dry-run says what it costs
"""


@dataclass(frozen=True, slots=True)
class _Preset:
    adapter: str
    adapter_note: str
    limit: int
    length: int
    batch: int
    rate: float


_PRESETS: dict[Machine, _Preset] = {
    "cpu": _Preset("lora", "a small addition to frozen weights; none trains all of them", 1000, 256, 16, 1e-4),
    "gpu": _Preset("none", "all weights are trained; lora takes a fraction of the memory", 20_000, 512, 32, 1e-6),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The file that was written, and what was decided for its reader."""

    path: Path
    notes: tuple[str, ...]


def main(
    *,
    model: str | None,
    data: str | None,
    machine: str,
    objective: str,
    to: str,
    ask: Callable[[str], str] | None = None,
) -> Recipe:
    """Write the recipe. `ask` answers a question; where it is None a terminal does, if there is one.

    Raises ConfigError where something is missing that nobody can be asked for, or the file is there already.
    """
    path = Path(to)
    if path.exists():
        raise ConfigError(f"{path} is there already", remedy="name another file with --to")
    if path.suffix != ".toml":
        raise ConfigError(f"{path} is no name of a TOML file", remedy=f"write --to {path.with_suffix('.toml')}")
    objectives.make(objective)  # refuses an unknown name
    ask = ask or _terminal()
    model = model or _answer(ask, "Which model? (a Hub id, a folder, a GGUF file)", "--model")
    data = data or _answer(ask, "Which pairs? (a file, a folder, a Hub data set)", "--data")
    pairs = config.section(config.DataSection, "data", setting("data.source", data)["data"])
    assert isinstance(pairs, config.DataSection)
    kind, note = _machine(machine)
    store.write_text(path, _text(model, pairs, objective, _PRESETS[kind], path))
    config.resolve(read_file(path))  # what is written can be read
    return Recipe(path, (note,))


def cost(recipe: Recipe, *, reporter: Reporter) -> list[str]:
    """What `trimtab plan` says of it; where model or pairs cannot be read, why, and what to do."""
    from trimtab.commands import plan
    from trimtab.runtime import set_up

    try:
        return plan.lines(plan.plan(set_up(config.resolve(read_file(recipe.path))), reporter=reporter))
    except TrimtabError as error:
        return [f"what it will cost cannot be said yet: {error}"]


def _text(model: str, data: config.DataSection, objective: str, preset: _Preset, path: Path) -> str:
    name = Path(model).name.removesuffix(".gguf") or "run"
    top: list[Line] = [
        ("out", f"runs/{name}", "the run's folder: report.html, model/, checkpoints/"),
        ("model", model, "a Hub id, a transformers folder or a GGUF file"),
        ("objective", objective, "`trimtab objectives` lists them with their formulas"),
        ("adapter", preset.adapter, preset.adapter_note),
    ]
    of_data: list[Line] = [
        ("source", data.source, "`trimtab audit` says what is wrong with it"),
        ("limit", preset.limit, "rows to draw from it; delete the line to use all"),
        ("holdout", 0.05, "share of the prompts kept out of training, to choose the best weights by"),
        ("max_prompt_tokens", preset.length, "longer prompts lose their oldest messages; memory and time grow with it"),
        ("max_response_tokens", preset.length, "longer responses are cut"),
    ]
    of_train: list[Line] = [
        ("epochs", 1, "passes over the pairs"),
        ("batch_pairs", preset.batch, "pairs an optimizer step; the memory does not depend on it"),
        ("learning_rate", preset.rate, f"`trimtab plan {path} --pilot-steps 20` says whether it will do anything"),
    ]
    head = f"# {model} on pairs of {data.label}. `trimtab keys` lists every key.\n"
    sections = [_lines(top), _QUESTION, f"[data]\n{_lines(of_data)}", f"[train]\n{_lines(of_train)}"]
    return head + "\n".join(sections)


def _lines(rows: list[Line]) -> str:
    """TOML with the comments in one column."""
    values = [f"{key} = {toml_value(value)}" for key, value, _ in rows]
    width = min(40, max(map(len, values)))
    return "".join(f"{value:{width}}  # {row[2]}\n" for value, row in zip(values, rows, strict=True))


def _machine(machine: str) -> tuple[Machine, str]:
    if machine == "auto":
        from trimtab.commands import doctor

        accelerators = doctor.versions().hardware.accelerators
        kind: Machine = "gpu" if accelerators else "cpu"
        return (
            kind,
            f"for this machine ({accelerators[0] if accelerators else 'no GPU that torch can use'}): {_words(kind)}",
        )
    kind = "gpu" if machine == "gpu" else "cpu"
    return kind, f"for a {'GPU' if kind == 'gpu' else 'CPU'}: {_words(kind)}"


def _words(kind: Machine) -> str:
    preset = _PRESETS[kind]
    way = "all weights" if preset.adapter == "none" else "a LoRA adapter"
    return f"{way}, {preset.limit:,} pairs, {preset.length} + {preset.length} tokens"


def _terminal() -> Callable[[str], str] | None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    from rich.prompt import Prompt

    return Prompt.ask


def _answer(ask: Callable[[str], str] | None, question: str, flag: str) -> str:
    if ask is None:
        raise ConfigError(f"{flag} is missing, and there is no terminal to ask on", remedy=f"write {flag} …")
    answer = ask(question).strip()
    if not answer:
        raise ConfigError(f"nothing was answered to: {question}", remedy=f"write {flag} …")
    return answer
