"""From numbers to sentences. Every sentence names its n, its interval and its judge, and says when it cannot tell.

A sentence is `{"text", "tone"}`; `**…**` in the text is stress. Tones: good, bad, even (not distinguishable), warn,
plain. The first sentence is the answer to "did it help?".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from trimtab.reporting import milestones, words_judged
from trimtab.reporting.estimates import Direction
from trimtab.reporting.glossary import GLOSSARY
from trimtab.reporting.numbers import EVEN
from trimtab.reporting.sentences import Sentence, Tone, sentence, signed
from trimtab.reporting.text import interval, number

NO_BENCHMARK = (
    "**Whether the answers got better was not measured**: no benchmark was asked. "
    "Add --benchmark with a file of prompts (or windtunnel) to find out."
)
NO_JUDGE = (
    "**Whether the answers got better was not judged**: the answers before and after are below, unjudged. "
    "Lengths and samples are all that can be said."
)


def headline(numbers: Mapping[str, Any]) -> list[Sentence]:
    """The sentences at the top of the report, the verdict first, then what qualifies it."""
    benchmark = numbers["benchmark"]
    if benchmark is None:
        sentences = [sentence(NO_BENCHMARK, "warn")]
    else:
        first, *others = _verdict(benchmark)
        sentences = [first, *words_judged.canaries(benchmark), *words_judged.constant(benchmark), *others]
        sentences += _scores(benchmark["scores"]) + _lengths(benchmark)
    sentences += milestones.sentences(numbers["milestones"]) + _heldout(numbers["heldout"])
    return sentences + [_edited(entry) for entry in numbers["edited"]]


def _edited(entry: Mapping[str, Any]) -> Sentence:
    files = ", ".join(entry["files"])
    text = f"**Edited after it was made** (seed {entry['seed']}): {files}. The numbers are of what stands there now."
    return sentence(text, "warn")


def _verdict(benchmark: Mapping[str, Any]) -> list[Sentence]:
    """The answer to "did it help?", and what else the judges say; a refusal where too many verdicts are missing."""
    record, marks, baseline = benchmark["identity"], benchmark["marks"], benchmark["baseline"]
    missing = words_judged.missing(record)
    if record is not None and record["refused"]:
        return missing
    if marks is not None:
        return words_judged.marks(marks) + missing
    if not benchmark["judges"]:
        return [sentence(NO_JUDGE, "warn")]
    if not baseline["published"]:
        return _judged(benchmark) + missing
    first, *others = words_judged.against_baseline(benchmark["judges"][0], baseline["name"])
    return [first, *missing, *others, *_all_controlled(benchmark)]


def regime_sentences(training: Mapping[str, Any] | None) -> list[Sentence]:
    """The regime in one sentence: of the seed, or of all seeds where they agree, else one a seed."""
    if training is None:
        return [sentence("No training step is recorded in this run folder, so no regime can be named.", "warn")]
    regimes = [entry["regime"] for entry in training["seeds"]]
    tone: Tone = "warn" if any(regime["name"] in (None, "starved") for regime in regimes) else "plain"
    names = {regime["name"] for regime in regimes}
    if len(regimes) == 1:
        return [sentence(regimes[0]["sentence"], tone)]
    if len(names) == 1 and regimes[0].get("share_at_end") is not None:
        told = ", ".join(
            f"{side} {_range([regime[key] for regime in regimes])}"
            for side, key in (
                ("both sides", "share_at_end"),
                ("chosen", "chosen_at_end"),
                ("rejected", "rejected_at_end"),
            )
        )
        name = str(regimes[0]["name"]).capitalize()
        what = "share of responses still active" if training["has_dead_zone"] else "share of the first pull left"
        return [sentence(f"{name} in all {len(regimes)} seeds: {what} at the end, {told}.", tone)]
    return [sentence(f"Seed {e['seed']}. {e['regime']['sentence']}", tone) for e in training["seeds"]]


def symptom_sentences(training: Mapping[str, Any] | None) -> list[Sentence]:
    """What went wrong in training without a number that is not finite, each kind once a seed."""
    entries = [] if training is None else training["seeds"]
    of = [f"Seed {entry['seed']}. " if len(entries) > 1 else "" for entry in entries]
    return [
        sentence(f"{which}**{told['seen']}.** Likely cause: {told['cause']}. {told['remedy']}.", "warn")
        for which, entry in zip(of, entries, strict=True)
        for told in entry["symptoms"]
    ]


def _range(shares: Sequence[float]) -> str:
    low, high = (number(100 * end(shares), digits=0) for end in (min, max))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _judged(benchmark: Mapping[str, Any]) -> list[Sentence]:
    return [_win_rate(benchmark["judges"][0]), *_all_controlled(benchmark)]


def _all_controlled(benchmark: Mapping[str, Any]) -> list[Sentence]:
    first = benchmark["judges"][0]
    return [
        _controlled(judge, first if first["role"] == "truth" and judge is not first else None)
        for judge in benchmark["judges"]
        if judge["length_controlled"] is not None
    ]


def _win_rate(judge: Mapping[str, Any]) -> Sentence:
    rate = judge["win_rate"]
    if rate["value"] is None:
        return sentence(f"{judge['label']} gave no verdict at all, so **nothing can be said**.", "warn")
    seeds = f" and {rate['n_seeds']} seeds" if rate["n_seeds"] > 1 else ""
    missing = f", {number(rate['n_missing'])} prompts without a verdict left out" if rate["n_missing"] else ""
    direction: Direction = judge["direction"]
    tone: Tone
    match direction:
        case "above":
            tone, end = "good", "**better than no change**, which would be 50 %"
        case "below":
            tone, end = "bad", "**worse than no change**, which would be 50 %"
        case "not distinguishable":
            tone, end = "even", "**not distinguishable from no change**, which would be 50 %"
        case "unknown":
            tone, end = "warn", "too few verdicts for an interval, so **nothing can be concluded**"
        case _:
            assert_never(direction)
    return sentence(
        f"The aligned model's answers are better than the unaligned model's on **{number(rate['value'])} %** of the "
        f"prompts, ties counted as half (95 % CI {interval(rate['ci95'])}, {number(rate['n'])} prompts{seeds}"
        f"{missing}, judge: {judge['label']}): {end}.",
        tone,
    )


def _controlled(judge: Mapping[str, Any], truth: Mapping[str, Any] | None) -> Sentence:
    raw, controlled = judge["win_rate"], judge["length_controlled"]["win_rate"]
    told = f"Judged by {judge['label']}: {number(raw['value'])} % raw (95 % CI {interval(raw['ci95'])})"
    if controlled["value"] is None:
        reasons = judge["length_controlled"]["by_seed"][0]["lc_notes"]
        return sentence(f"{told}; a length-controlled win rate could not be computed: {'; '.join(reasons)}.", "warn")
    told += (
        f" and **{number(controlled['value'])} %** with answer length controlled "
        f"(95 % CI {interval(controlled['ci95'])}, {number(controlled['n'])} prompts{_uncalibrated(judge)})"
    )
    if truth is None or truth["win_rate"]["value"] is None:
        return sentence(f"{told}.", "plain")
    end, tone = _against_truth(raw, controlled, truth["win_rate"]["value"])
    return sentence(f"{told}; {end}.", tone)


def _uncalibrated(judge: Mapping[str, Any]) -> str:
    """The length model's constants were fitted to one judge; the wind tunnel's judges are told against the truth."""
    return "" if judge["length_controlled"]["calibrated"] is not False else ", uncalibrated for this judge"


def _against_truth(raw: Mapping[str, Any], controlled: Mapping[str, Any], true: float) -> tuple[str, Tone]:
    """What length control made of a judge's error. Length control cannot take away a judge's doubt, and says so."""
    in_raw, in_controlled = (_holds(estimate["ci95"], true) for estimate in (raw, controlled))
    if in_controlled:
        recovered = "both intervals hold" if in_raw else "the raw interval misses and length control recovers"
        return f"{recovered} the true {number(true)} %", "plain"
    found = controlled["value"]
    outside = f"the true {number(true)} % lies outside {'the second interval' if in_raw else 'both intervals'}"
    if (found - EVEN) * (true - EVEN) > 0 and abs(found - EVEN) < abs(true - EVEN):
        return f"{outside}, and a judge in doubt stays nearer to 50 % than the truth", "plain"
    return f"{outside}: **this judge misleads here**", "warn"


def _holds(bounds: Sequence[float] | None, value: float) -> bool:
    return bounds is not None and bounds[0] <= value <= bounds[1]


def _scores(scores: Mapping[str, Any] | None) -> list[Sentence]:
    if scores is None:
        return []
    change = scores["difference"]
    told = (
        f"The true mean score went from {number(scores['before']['value'], digits=3)} to "
        f"**{number(scores['after']['value'], digits=3)}** of 1 (change {signed(change['value'], digits=3)}, 95 % CI "
        f"{interval(change['ci95'], digits=3)}, {number(change['n'])} prompts, judge: oracle)"
    )
    tones: dict[Direction, Tone] = {"above": "good", "below": "bad"}
    end = "" if scores["direction"] in tones else ": not distinguishable from no change"
    return [sentence(f"{told}{end}.", tones.get(scores["direction"], "even"))]


def _lengths(benchmark: Mapping[str, Any]) -> list[Sentence]:
    lengths = benchmark["lengths"]
    if lengths is None:
        return []
    unit = lengths["unit"]
    change = lengths[unit]
    if benchmark["before"] == "baseline":
        told = f"{number(change['after']['value'])} {unit}, {benchmark['baseline']['name']}'s"
        return [
            sentence(
                f"The aligned model's answers have {told} {number(change['before']['value'])} (difference "
                f"{signed(change['difference']['value'])}, 95 % CI {interval(change['difference']['ci95'])}, "
                f"{number(change['difference']['n'])} prompts). What alignment did to length was not measured: the "
                "unaligned model did not answer.",
                "plain",
            )
        ]
    ratio = f"{signed(100 * change['relative'], digits=0)} %, " if change["relative"] is not None else ""
    told = (
        f"from {number(change['before']['value'])} to **{number(change['after']['value'])} {unit}** a prompt "
        f"({ratio}change {signed(change['difference']['value'])}, 95 % CI {interval(change['difference']['ci95'])}, "
        f"{number(change['difference']['n'])} prompts)"
    )
    direction: Direction = change["direction"]
    match direction:
        case "above":
            warning = "Judges that like long answers overrate them; length control corrects for that."
            return [sentence(f"**Answers grew longer**, {told}. {warning}", "warn")]
        case "below":
            return [sentence(f"Answers became shorter, {told}.", "plain")]
        case "not distinguishable" | "unknown":
            return [sentence(f"Answers kept their length: {told}; no change that can be told from none.", "plain")]
        case _:
            assert_never(direction)


def _heldout(heldout: Mapping[str, Any] | None) -> list[Sentence]:
    if heldout is None or heldout["accuracy"] is None or heldout["accuracy"]["value"] is None:
        return []
    accuracy = heldout["accuracy"]
    whose = (
        f"{accuracy['n_seeds']} models' own rewards rank" if accuracy["n_seeds"] > 1 else "the model's own reward ranks"
    )
    return [
        sentence(
            f"On {number(accuracy['n'])} preference pairs kept out of training {whose} "
            f"**{number(100 * accuracy['value'])} %** as their labels do "
            f"(95 % CI {interval(_percent(accuracy['ci95']))}; 50 % is chance).",
            "plain",
        )
    ]


def not_measured(numbers: Mapping[str, Any]) -> list[str]:
    """What a reader would look for and will not find, and how to get it."""
    gaps = _benchmark_gaps(numbers["benchmark"])
    if numbers["training"] is None:
        gaps.append("Training curves: metrics.jsonl is not in the run folder.")
    if numbers["heldout"] is None:
        gaps.append("Held-out pairs: none were kept out of training, or they were not evaluated (--data.holdout).")
    if numbers["audit"] is None:
        gaps.append("Data audit: data/audit.json is not in the run folder.")
    if len(numbers["seeds"]) == 1:
        gaps.append(
            "Seeds: one training run only. The intervals say what other prompts would give, not what another seed "
            "would (--seeds 3)."
        )
    elif len(numbers["seeds"]) == 2:
        gaps.append("Seeds: two say little about a third, so the intervals are wide; three narrow them (--seeds 3).")
    return gaps


def _benchmark_gaps(benchmark: Mapping[str, Any] | None) -> list[str]:
    if benchmark is None:
        return ["Answers: no benchmark was asked, so there are no win rates, lengths or samples (--benchmark)."]
    gaps: list[str] = []
    if not benchmark["judges"] and benchmark["marks"] is None:
        gaps.append("Win rates: the answers were not judged (--judge).")
    elif benchmark["marks"] is not None or benchmark["judges"][0]["role"] != "truth":
        gaps.append("The truth: only a judge's opinion is known here, with that judge's biases.")
    if not benchmark["families"] and benchmark["marks"] is None:
        gaps.append("Families: the benchmark's prompts carry no family, so there is no breakdown.")
    if (benchmark["judges"] or benchmark["marks"]) and not benchmark["canaries"]:
        gaps.append("Canaries: the judge was not shown answers that must lose or tie (--judge.canaries).")
    if benchmark["scores"] is None:
        gaps.append("True scores: known only in the wind tunnel.")
    return gaps


def _percent(bounds: Sequence[float] | None) -> list[float] | None:
    return None if bounds is None else [100 * bound for bound in bounds]


__all__ = ["GLOSSARY", "headline", "not_measured", "regime_sentences", "symptom_sentences"]
