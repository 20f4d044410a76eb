"""The benchmark's part of the page: win rates, families, lengths, samples. No number is made here.

A table is `{"head", "rows"}` of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis import plots
from trimtab.reporting.forest import EVEN, forest
from trimtab.reporting.samples import ORDER_RULE
from trimtab.reporting.text import number, shortened, shown, significant

LONGEST_TEXT = 1500
OUTCOMES = {"win": "aligned better", "loss": "aligned worse", "tie": "tie", "missing": "no verdict"}


# --- win rates -------------------------------------------------------------------------------------------------------


def wins(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Every judge's win rate, raw and length-controlled, the unaligned model's beside it, and each seed's."""
    if benchmark is None or not benchmark["judges"]:
        return None
    judges, baseline = benchmark["judges"], benchmark["baseline"]
    rows = [row for judge in judges for row in _judge_rows(judge)]
    controlled = [judge for judge in judges if judge["length_controlled"]]
    changed = [judge for judge in judges if judge["unaligned"]]
    first = judges[0]
    return {
        "lead": _wins_lead(baseline),
        "forest": forest(rows, label="Win rates with 95 % intervals", even=EVEN),
        "table": _wins_table(judges),
        "change": _change_facts(changed[0], baseline["name"]) if changed else None,
        "length_control": _length_control_table(controlled) if controlled else None,
        "by_seed": _by_seed(first) if len(first["by_seed"]) > 1 else None,
        "notes": _refusal(benchmark["identity"]) + _win_notes(judges),
    }


def _wins_lead(baseline: Mapping[str, Any]) -> str:
    whose = f"{baseline['name']}'s" if baseline["published"] else "the unaligned model's"
    even = f"as good as {baseline['name']}, which is not no change" if baseline["published"] else "no change"
    return (
        f"Share of prompts on which the aligned model's answer beats {whose}, ties counted as half, in percent with "
        f"95 % intervals. The dashed line is 50: {even}."
    )


def _refusal(record: Mapping[str, Any] | None) -> list[str]:
    if record is None or not record["refused"]:
        return []
    return [
        f"No headline number: {number(record['n_missing'])} of {number(record['n_prompts'])} verdicts are missing. "
        "What is shown here is of the rest only."
    ]


def _judge_rows(judge: Mapping[str, Any]) -> list[dict[str, Any]]:
    truth = judge["role"] == "truth"
    whose = ", aligned" if judge["unaligned"] else ""
    raw = "truth" if truth or judge["unaligned"] else "judge"
    rows = [
        _forest_row(f"{'True' if truth else 'Raw'} win rate{whose}", judge, judge["win_rate"], raw),
    ]
    if judge["unaligned"]:
        rows.append(_forest_row("Raw win rate, unaligned", judge, judge["unaligned"]["win_rate"], "judge"))
    if judge["length_controlled"]:
        doubt = ", uncalibrated" if judge["length_controlled"]["calibrated"] is False else ""
        name = f"Length-controlled win rate{whose}{doubt}"
        rows.append(_forest_row(name, judge, judge["length_controlled"]["win_rate"], "lc"))
    return rows


def _forest_row(name: str, judge: Mapping[str, Any], estimate: Mapping[str, Any], kind: str) -> dict[str, Any]:
    note = f"judge: {judge['label']} · {_counted(estimate)}"
    return {"name": name, "note": note, "estimate": estimate, "kind": kind}


def _change_facts(judge: Mapping[str, Any], baseline: str) -> list[tuple[str, str]]:
    """The paired comparison of both models against the same baseline, as name and value."""
    before, change = judge["unaligned"]["win_rate"], judge["unaligned"]["change"]
    tally = f"{number(change['wins_a'])}, {number(change['ties'])}, {number(change['wins_b'])}"
    left_out = f", {number(change['n_missing'])} left out" if change["n_missing"] else ""
    return [
        (f"aligned, % against {baseline}", shown(judge["win_rate"])),
        (f"unaligned, % against {baseline}", shown(before)),
        ("difference, points, paired by prompt", shown(change)),
        ("prompts", f"{number(change['n'])}{left_out}"),
        ("aligned better, equal, unaligned better", tally),
        (f"p, {change['test']}", significant(change["p_value"])),
        ("judge", judge["label"]),
    ]


def _counted(estimate: Mapping[str, Any]) -> str:
    seeds = f", {estimate['n_seeds']} seeds" if estimate["n_seeds"] > 1 else ""
    return f"{number(estimate['n'])} prompts{seeds}"


def _wins_table(judges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for judge in judges:
        rate, sign_test = judge["win_rate"], judge["sign_test_p"]
        counts = (rate["n"], rate["n_missing"], judge["n_wins"], judge["n_ties"], judge["n_losses"])
        p_value = "–" if sign_test is None else significant(sign_test)
        rows.append([judge["label"], shown(rate), *(number(count) for count in counts), p_value])
    return {"head": ["judge", "win rate %", "n", "no verdict", "wins", "ties", "losses", "sign test p"], "rows": rows}


def _length_control_table(judges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for judge in judges:
        for fit in judge["length_controlled"]["by_seed"]:
            near = ", ".join(f"{c}: {number(rate)}" for c, rate in fit["lc_neighbours"].items())
            value = {"value": fit["length_controlled_winrate"], "ci95": fit["lc_ci95"]}
            rows.append(
                [judge["label"], str(fit["seed"]), shown(value), significant(fit["lc_c"]), near, fit["lc_variant"]]
            )
    return {"head": ["judge", "seed", "LC win rate %", "C chosen", "LC at C and its neighbours", "model"], "rows": rows}


def _by_seed(judge: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "name": f"Seed {entry['seed']}",
            "note": f"judge: {judge['label']}",
            "estimate": entry["win_rate"],
            "kind": "judge",
        }
        for entry in judge["by_seed"]
    ]
    rows.append({"name": "Pooled", "note": _counted(judge["win_rate"]), "estimate": judge["win_rate"], "kind": "truth"})
    table = [
        [
            str(e["seed"]),
            shown(e["win_rate"]),
            number(e["win_rate"]["n"]),
            number(e["n_wins"]),
            number(e["n_ties"]),
            number(e["n_losses"]),
        ]
        for e in judge["by_seed"]
    ]
    return {
        "forest": forest(rows, label="Win rate of every seed", even=EVEN),
        "table": {"head": ["seed", "win rate %", "n", "wins", "ties", "losses"], "rows": table},
    }


def _win_notes(judges: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [f"Intervals: {judges[0]['win_rate']['method']}."]
    for judge in judges:
        if judge["detectable"] is not None and judge["direction"] == "not distinguishable":
            notes.append(
                f"With {number(judge['win_rate']['n'])} prompts and this spread, {judge['label']} shows a difference "
                f"of {number(judge['detectable'])} points from 50 four times in five; smaller ones need more prompts."
            )
        if judge["length_controlled"]:
            notes.append(
                f"Length control: {judge['length_controlled']['variant']}, C chosen by cross-validation; its interval: "
                f"{judge['length_controlled']['win_rate']['method']}."
            )
            if judge["length_controlled"]["calibrated"] is False:
                notes.append(
                    "The length model's constants were fitted to the leaderboard's judge; for another judge they are "
                    "uncalibrated, and the figure is comparable with no other."
                )
            notes += [f"{note[0].upper()}{note[1:]}." for note in judge["length_controlled"]["notes"]]
            notes += sorted({note for fit in judge["length_controlled"]["by_seed"] for note in fit["lc_notes"]})
    return notes


# --- families, lengths, held-out -------------------------------------------------------------------------------------


def families(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Win rates by the first judge as a forest, all judges as a table; true scores where they are known."""
    if benchmark is None or not benchmark["families"] or not benchmark["judges"]:
        return None
    judges = benchmark["judges"]
    first = judges[0]
    rows = [
        {
            "name": row["family"],
            "note": f"{row['n_prompts']} prompts",
            "estimate": row["judges"][first["judge"]],
            "kind": "truth" if first["role"] == "truth" else "judge",
        }
        for row in benchmark["families"]
    ]
    table = [
        [row["family"], number(row["n_prompts"]), *(shown(row["judges"][judge["judge"]]) for judge in judges),
         *(shown(change) for change in row["changes"].values()), shown(row["characters"]["difference"])]
        for row in benchmark["families"]
    ]  # fmt: skip
    changes = ["change by alignment, points" for _ in benchmark["families"][0]["changes"]]
    rates = [f"win rate %, {judge['label']}" for judge in judges]
    head = ["family", "prompts", *rates, *changes, "change in characters"]
    return {
        "lead": f"Win rate in percent, judge: {first['label']}. Families are small, so their intervals are wide; "
        f"one family in twenty {'differs' if benchmark['baseline']['published'] else 'leaves 50'} by chance alone.",
        "forest": forest(rows, label="Win rates by family", even=EVEN),
        "table": {"head": head, "rows": table},
        "scores": _score_families(benchmark["scores"]),
    }


def _score_families(scores: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    rows = [
        {
            "name": row["family"],
            "note": f"{row['after']['n']} prompts, judge: oracle",
            "estimate": row["after"],
            "kind": "truth",
            "was": row["before"]["value"],
        }
        for row in scores["families"]
    ]
    table = [
        [
            row["family"],
            number(row["after"]["n"]),
            *(shown(row[key], digits=3) for key in ("before", "after", "difference")),
        ]
        for row in [{"family": "all"} | dict(scores), *scores["families"]]
    ]
    return {
        "forest": forest(rows, label="True scores by family, before and after", even=None, digits=2),
        "table": {"head": ["family", "n", "before", "after", "change"], "rows": table},
    }


def lengths(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Histograms before and after, means in every unit, answers cut off, empty or unchanged."""
    if benchmark is None or benchmark["lengths"] is None:
        return None
    told = benchmark["lengths"]
    unit, histogram = told["unit"], told["histogram"]
    units = [name for name in ("tokens", "characters") if name in told]
    rows = [
        [
            f"mean length, {name}",
            *(shown(told[name][key]) for key in ("before", "after", "difference")),
            number(told[name]["after"]["n"]),
        ]
        for name in units
    ]
    for key, name in (("cut_off", "cut off at the limit, share"), ("empty", "empty, share")):
        rows.append(
            [
                name,
                *(shown(told[key][when], digits=3) for when in ("before", "after")),
                "",
                number(told[key]["after"]["n"]),
            ]
        )
    edges = histogram["edges"]
    bins = [
        [f"{edges[i]} to {edges[i + 1] - 1}" if i + 2 < len(edges) else f"{edges[i]} and more",
         *(f"{number(100 * histogram[when][i])} %" for when in ("before", "after"))]
        for i in range(len(edges) - 1)
    ]  # fmt: skip
    plot = plots.length_plot(edges, histogram["before"], histogram["after"], unit=unit)
    return {
        "lead": f"{number(told['n_identical'])} of {number(told['n_compared'])} answers are the same, letter by "
        "letter, before and after. Lengths are those of the whole answer as sampled.",
        "plots": [
            {
                "title": "Before and after"
                if benchmark["before"] == "before"
                else "The baseline and the aligned model",
                "note": f"share of answers by length, {unit}; the dashed line is the mean",
                "svg": plot,
            }
        ],
        "table": {"head": ["", benchmark["before"], "after", "change", "n"], "rows": rows},
        "histogram": {"head": [unit, benchmark["before"], "after"], "rows": bins},
    }


# --- samples ---------------------------------------------------------------------------------------------------------


def samples(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Groups with long texts shortened and verdicts in words; wins and losses stand open."""
    if not groups:
        return None
    laid = [
        dict(group)
        | {
            "open": group["group"] in ("win", "loss", "answer"),
            "samples": [_sample(sample) for sample in group["samples"]],
        }
        for group in groups
    ]
    return {
        "lead": f"Wins and losses in equal number, {ORDER_RULE}. How often each happened is the win rate's business.",
        "groups": laid,
    }


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = " · ".join(f"{verdict['judge']}: {OUTCOMES[verdict['outcome']]}" for verdict in sample["verdicts"])
    texts = {
        when: dict(sample[when]) | {"text": shortened(sample[when]["text"], limit=LONGEST_TEXT) or "(empty)"}
        for when in ("before", "after")
    }
    return dict(sample) | texts | {"prompt": shortened(sample["prompt"], limit=LONGEST_TEXT), "verdicts": verdicts}
