"""The first screen of a report: what was trained, did it help, did it harm, how sure. 250 words at most on every page,
so a seed or a judge too many is counted here and named below."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from trimtab.config import DataSection
from trimtab.reporting.numbers.report import Report
from trimtab.reporting.sections import Sentence, SummaryEntry, sentence
from trimtab.reporting.text import counted, number

NO_CHECK = "Whether it harmed other abilities was not measured: “trimtab check” asks both models."
LONGEST = 60  # words of a sentence on the first screen
_STRESSED = re.compile(r"\*\*(.+?)\*\*")


def summary(
    report: Report,
    *,
    helped: Sequence[Sentence],
    harmed: Sequence[Sentence],
    length: Sequence[Sentence],
    rest: Sequence[Sentence],
) -> list[SummaryEntry]:
    """`helped` and `harmed` are the answers, the most important first; `rest` is what else the report concludes."""
    question, other = (
        ("Does it rank as the labels do?", "Does it like length?")
        if report.objective.on_scores
        else ("Did it help?", "Did it harm?")
    )
    harm = [*(harmed or ([] if report.objective.on_scores else [sentence(NO_CHECK)])), *length][:2]
    entries = [
        SummaryEntry("What was trained", [sentence(trained(report))]),
        SummaryEntry(question, helped, main=True),
        *([SummaryEntry(other, harm)] if harm else []),
    ]
    sentences = [entry for part in entries for entry in part.sentences]
    warnings = [entry for entry in rest if entry.tone in ("warn", "bad") and entry not in sentences]
    n_prompts = report.benchmark is not None and bool(report.benchmark.judges or report.benchmark.marks)
    sample = "prompts" if n_prompts else "pairs"
    sure = [sentence(certainty(len(report.seeds), sample)), *warned(warnings)]
    return brief([*entries, SummaryEntry("How sure?", sure)])


def brief(entries: Sequence[SummaryEntry]) -> list[SummaryEntry]:
    """The same, with what is longer than a first screen can hold cut; it stands whole below."""
    return [replace(entry, sentences=[_cut(sentence) for sentence in entry.sentences]) for entry in entries]


def _cut(whole: Sentence) -> Sentence:
    words = whole.text.split(" ")
    if len(words) <= LONGEST:
        return whole
    text = " ".join(words[: LONGEST - 4])
    return replace(whole, text=f"{text}{'**' * (text.count('**') % 2)} … (in full below)")


def certainty(n_seeds: int, sample: str) -> str:
    """What the page's intervals speak of."""
    if n_seeds == 1:
        return f"One training run: the 95 % intervals say what other {sample} would give, not what another seed would."
    return f"{n_seeds} seeds: the 95 % intervals speak of other {sample} and of other seeds."


def warned(warnings: Sequence[Sentence]) -> Iterator[Sentence]:
    """How many warnings stand below, and their first words."""
    if warnings:
        names = dict.fromkeys(_name(entry) for entry in warnings)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        verb = "qualifies" if len(warnings) == 1 else "qualify"
        yield sentence(
            f"{counted(len(warnings), 'warning')} below {verb} this: {'; '.join(list(names)[:3])}{more}.", "warn"
        )


def _name(warning: Sentence) -> str:
    """What is stressed in it, or its first words."""
    stressed = _STRESSED.search(warning.text)
    words = (stressed[1] if stressed else warning.text).rstrip(".").split()
    return " ".join(words[:8]) + (" …" if len(words) > 8 else "")


def trained(report: Report) -> str:
    """The model, its objective, the pairs and the steps."""
    config = report.config
    adapter = config["adapter"]
    weights = "all of its weights" if adapter["kind"] == "none" else f"a LoRA adapter of rank {adapter['rank']}"
    data = DataSection(source=config["data"]["source"]).label
    pairs = (report.audit or {}).get("train")
    source = f"pairs of {data}" if pairs is None else f"{counted(pairs, 'preference pair')} of {data}"
    text = f"{config['model']['name']}, {weights}, with {report.objective.name} on {source}"
    if report.training is None:
        return f"{text}."
    seeds = report.training.seeds
    steps = ", ".join(dict.fromkeys(number(entry.n_steps) for entry in seeds))
    regimes = list(dict.fromkeys(entry.regime.name or "unnamed" for entry in seeds))
    regime = f"; regime: {', '.join(regimes)}" if regimes != ["unnamed"] else ""
    return f"{text}, {steps} {'step' if steps == '1' else 'steps'}{regime}."
