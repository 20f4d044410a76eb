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
_STRESS = re.compile(r"\*\*(.+?)\*\*")


def summary(
    report: Report,
    *,
    benefit: Sequence[Sentence],
    harm: Sequence[Sentence],
    length: Sequence[Sentence],
    conclusions: Sequence[Sentence],
) -> list[SummaryEntry]:
    """`benefit` and `harm` are the answers, the most important first; `conclusions` are all of the report's."""
    is_reward = report.objective.on_scores
    if not is_reward and not harm:
        harm = [sentence(NO_CHECK)]
    entries = [SummaryEntry("What was trained", [sentence(subject(report))])]
    entries.append(SummaryEntry("Does it rank as the labels do?" if is_reward else "Did it help?", benefit, main=True))
    if harm or length:
        entries.append(SummaryEntry("Does it like length?" if is_reward else "Did it harm?", [*harm, *length][:2]))
    sentences = [part for entry in entries for part in entry.sentences]
    warnings = [part for part in conclusions if part.tone in ("warn", "bad") and part not in sentences]
    is_judged = report.benchmark is not None and bool(report.benchmark.judges or report.benchmark.marks)
    text = certainty(len(report.seeds), "prompts" if is_judged else "pairs")
    return brief([*entries, SummaryEntry("How sure?", [sentence(text), *warning_count(warnings)])])


def brief(entries: Sequence[SummaryEntry]) -> list[SummaryEntry]:
    """The same, with what is longer than a first screen can hold cut; it stands whole below."""
    return [replace(entry, sentences=[_brief(part) for part in entry.sentences]) for entry in entries]


def _brief(sentence: Sentence) -> Sentence:
    words = sentence.text.split(" ")
    if len(words) <= LONGEST:
        return sentence
    text = " ".join(words[: LONGEST - 4])
    return replace(sentence, text=f"{text}{'**' * (text.count('**') % 2)} … (in full below)")


def certainty(n_seeds: int, sample: str, *, single: str = "One training run") -> str:
    """What the page's intervals speak of; `single` names the runs where there is one seed."""
    if n_seeds == 1:
        return f"{single}: the 95 % intervals say what other {sample} would give, not what another seed would."
    return f"{n_seeds} seeds: the 95 % intervals speak of other {sample} and of other seeds."


def warning_count(warnings: Sequence[Sentence]) -> Iterator[Sentence]:
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
    stress = _STRESS.search(warning.text)
    words = (stress[1] if stress else warning.text).rstrip(".").split()
    return " ".join(words[:8]) + (" …" if len(words) > 8 else "")


def subject(report: Report) -> str:
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
