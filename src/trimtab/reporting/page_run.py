"""The run's part of the page: training curves, held-out pairs, the data audit, facts. No number is made here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis import plots
from trimtab.analysis.calibration import Bin
from trimtab.config import default_of, keys
from trimtab.reporting.estimates import scaled
from trimtab.reporting.forest import EVEN, forest
from trimtab.reporting.text import duration, number, shortened, shown, significant, size
from trimtab.reporting.training import SIDES

LONGEST_TEXT = 1500
_COUNTS = (("rows", "rows read"), ("kept", "kept"), ("dropped", "dropped"))


# --- training --------------------------------------------------------------------------------------------------------


def training(told: Mapping[str, Any] | None, objective: Mapping[str, Any]) -> dict[str, Any] | None:
    """Curves of all seeds, their summary, and the numbers behind the curves."""
    if told is None:
        return None
    entries = told["seeds"]
    curves = [entry["curves"] for entry in entries]
    has = {name for table in curves for name in table}
    drawn = []
    if "loss" in has:
        drawn.append(
            {
                "title": "Loss",
                "note": "mean over the pairs of a step",
                "svg": plots.loss_plot(curves, step_zero=told["step_zero"]),
            }
        )
    if {"rewards/chosen", "rewards/rejected"} <= has:
        drawn.append(
            {
                "title": "Rewards",
                "note": "β · log-ratio, by side, and the gap between them",
                "svg": plots.reward_plot(curves),
            }
        )
    if {"pull/chosen", "pull/rejected"} <= has and not told["has_dead_zone"]:
        drawn.append(
            {
                "title": "Pull",
                "note": "gradient of a response against its own at the start, by side",
                "svg": plots.pull_plot(curves),
            }
        )
    elif {"active/chosen", "active/rejected"} <= has:
        drawn.append(
            {
                "title": "Active responses",
                "note": "share with a gradient that is not exactly zero, by side",
                "svg": plots.active_plot(curves),
            }
        )
    return {
        "lead": f"Loss of one pair: {objective['formula']}. Dead zone: {objective['dead_zone']}.",
        "plots": drawn,
        "summary": _training_summary(entries),
        "epochs": _epochs(entries),
        "curves": [
            {
                "title": f"Table: the curves of seed {entry['seed']} (means over stretches of steps)",
                "table": _curve_table(entry["curves"]),
            }
            for entry in entries
        ],
    }


def _training_summary(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def last(entry: Mapping[str, Any], name: str) -> str:
        return significant(entry["last_tenth"].get(name))

    rows: list[list[str]] = [
        ["regime", *(entry["regime"]["name"] or "not named" for entry in entries)],
        ["optimizer steps", *(number(entry["n_steps"]) for entry in entries)],
        ["epochs", *(significant(entry["epochs"]) for entry in entries)],
        ["loss, first step", *(significant(entry["first"].get("loss")) for entry in entries)],
        *(
            [f"{label}, last tenth", *(last(entry, name) for entry in entries)]
            for label, name in (
                ("loss", "loss"), ("reward, chosen", "rewards/chosen"), ("reward, rejected", "rewards/rejected"),
                ("reward gap", "rewards/margins"), ("reward accuracy", "rewards/accuracies"),
                ("active, chosen", "active/chosen"), ("active, rejected", "active/rejected"),
                ("backward skipped", "skipped_backward"),
            )
        ),
        ["time", *(duration(entry["seconds"]) for entry in entries)],
        ["tokens a second, median", *(significant(entry["tokens_per_second"]) for entry in entries)],
        ["peak memory", *(size(entry["peak_memory_bytes"]) for entry in entries)],
    ]  # fmt: skip
    return {"head": ["", *(f"seed {entry['seed']}" for entry in entries)], "rows": rows}


def _epochs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    rows = [
        [
            f"seed {entry['seed']}, epoch {row['epoch']}",
            number(row["n_steps"]),
            *(significant(row[side]) for side in SIDES),
        ]
        for entry in entries
        for row in entry["sides_by_epoch"]
    ]
    return {"head": ["", "steps", *SIDES], "rows": rows} if rows else None


def _curve_table(curves: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    names = [name for name in curves if name != "step"]
    rows = [[f"{step:g}", *(significant(curves[name][i]) for name in names)] for i, step in enumerate(curves["step"])]
    return {"head": ["step", *names], "rows": rows}


def heldout(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Reward accuracy and calibration after training, each seed and pooled."""
    if told is None:
        return None
    entries = [(f"Seed {entry['seed']}", entry) for entry in told["by_seed"]]
    if len(entries) > 1:
        entries.append(("Pooled", told))
    rows = [
        {
            "name": name,
            "note": f"{number(entry['accuracy']['n'])} pairs",
            "estimate": scaled(entry["accuracy"], 100),
            "kind": "truth",
        }
        for name, entry in entries
    ]
    if told["before"] is not None:
        entries.insert(0, ("before training", told["before"]))
    table = [
        [name, shown(entry["accuracy"], digits=3), shown(entry["reward_gap"], digits=3), number(entry["accuracy"]["n"])]
        for name, entry in entries
    ]
    started_even = told["before"] is not None and told["before"]["reward_gap"]["value"] == 0
    return {
        "lead": "Share of preference pairs, kept out of training, whose chosen response the model's own reward puts "
        "above the rejected one, in percent; 50 is chance."
        + (" Before training every reward is zero, so there was nothing to rank." if started_even else "")
        + f" Intervals: {told['accuracy']['method'].replace('prompts', 'pairs')}.",
        "forest": forest(rows, label="Held-out reward accuracy", even=EVEN),
        "table": {"head": ["", "accuracy", "reward gap (nats)", "n"], "rows": table},
        "reliability": _reliability(told["calibration"], with_before=not started_even),
    }


def _reliability(told: Mapping[str, Any], *, with_before: bool) -> dict[str, Any]:
    """The reliability diagram of the reward gap and its table."""
    after = told["after"]
    errors = (
        f"expected calibration error {number(after['ece'], digits=3)}, Brier score {number(after['brier'], digits=3)}"
    )
    rows = [
        [
            f"{number(low, digits=2)} to {number(high, digits=2)}",
            number(n),
            *(number(share, digits=3) for share in shares),
        ]
        for low, high, n, *shares in after["bins"]
    ]
    return {
        "title": "Does the reward gap mean what it says?",
        "note": f"σ(|gap|) against how often its sign is right; {errors}, {number(after['n'])} gaps of all seeds",
        "svg": plots.reliability_plot(_bins(told["before"]) if with_before else (), _bins(after)),
        "table": {"head": ["confidence", "gaps", "mean confidence", "share right"], "rows": rows},
    }


def _bins(calibration: Mapping[str, Any]) -> tuple[Bin, ...]:
    """The tree of report.json as what the plot takes."""
    return tuple(Bin(*row) for row in calibration["bins"])


def data(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Rows in, rows out, why; what lengths alone give away; the first pair as the model sees it."""
    if audit is None:
        return None
    reasons = sorted(audit.get("dropped_by_reason", {}).items(), key=lambda entry: -entry[1])
    overlap = audit.get("overlap_with_evaluation")
    counts = ", ".join(f"{number(audit.get(key))} {name}" for key, name in _COUNTS)
    lead = f"{counts}."
    if audit.get("train") is not None:
        lead += f" {number(audit['train'])} pairs were trained on, {number(audit.get('heldout'))} held out."
    if overlap is not None:
        lead += f" {number(overlap['rows'])} kept rows hold a prompt of the benchmark."
    sample = audit.get("sample") or {}
    return {
        "lead": lead,
        "reasons": {"head": ["dropped because", "rows"], "rows": [[name, number(count)] for name, count in reasons]},
        "lengths": _data_lengths(audit),
        "bias": _bias(audit),
        "template": audit.get("template_sentence", ""),
        "sample": [
            (name, shortened(str(sample[name]), limit=LONGEST_TEXT))
            for name in ("prompt", "chosen", "rejected")
            if name in sample
        ],
    }


def _data_lengths(audit: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [f"{part}, {unit}", *(number(summary.get(key)) for key in ("median", "mean", "p95", "maximum"))]
        for unit, parts in audit.get("lengths", {}).items()
        for part, summary in parts.items()
    ]
    return {"head": ["", "median", "mean", "95th percentile", "maximum"], "rows": rows}


def _bias(audit: Mapping[str, Any]) -> str:
    told = [
        f"In {unit}: the chosen response is the longer one in {number(100 * bias['chosen_longer'])} % of the pairs; "
        f"length alone tells chosen from rejected with an AUC of {number(bias['auc'], digits=2)} "
        f"(0.5 is no information), Cohen's d {number(bias['cohens_d'], digits=2)}."
        for unit, bias in audit.get("length_bias", {}).items()
    ]
    return " ".join(told)


def facts(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as name and value, dotted."""
    rows: list[tuple[str, str]] = []
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping):
            rows += facts(value, f"{dotted}.")
        elif isinstance(value, list | tuple):
            rows.append((dotted, ", ".join(str(item) for item in value) or "none"))
        elif isinstance(value, float):
            rows.append((dotted, significant(value, digits=4)))
        else:
            rows.append((dotted, "not set" if value is None else str(value)))
    return rows


def config_rows(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every key of the resolved configuration, as it would be written, and whether it differs from its default."""
    rows = []
    for key in keys():
        section, _, name = key.rpartition(".")
        value = tree[section][name] if section else tree[name]
        rows.append({"key": key, "value": json.dumps(value, ensure_ascii=False), "set": value != _default(key)})
    return rows


def _default(key: str) -> Any:
    default = default_of(key)
    return list(default) if isinstance(default, tuple) else default
