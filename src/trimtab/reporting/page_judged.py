"""The judge's part of the page: who judged, canaries, length bins, marks. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis import plots
from trimtab.reporting.forest import EVEN, forest
from trimtab.reporting.text import interval, number, shown

_SHORT = 16  # digits of a digest on the page; report.json has all of them


def who(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Who judged, with what, at what cost, and what its canaries showed."""
    if benchmark is None or (benchmark["identity"] is None and not benchmark["canaries"]):
        return None
    record = benchmark["identity"]
    return {
        "facts": [] if record is None else _facts(record),
        "texts": _texts(record),
        "canaries": _canaries(benchmark["canaries"]),
        "alarms": [f"{row['judge']}: {row['sentence']}" for row in benchmark["canaries"] if row["alarm"]],
        "notes": [] if record is None else list(record["notes"]),
    }


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    cost = "not known" if record["cost_usd"] is None else f"{record['cost_usd']:.2f} USD"
    missing = f"{number(record['n_missing'])} of {number(record['n_prompts'])}"
    allowed = " (allowed by --allow-missing)" if record["allow_missing"] and record["n_missing"] else ""
    rows = [
        ("judge", record.get("judge")),
        ("model", record.get("model")),
        ("asked at", record.get("base_url")),
        ("rubric", record.get("rubric")),
        ("prompt, sha256", _digest(record.get("prompt_sha256"))),
        ("order of the answers", record.get("order")),
        ("verdicts missing", missing + allowed),
        (
            "asked now, from the store, failed",
            ", ".join(number(record[k]) for k in ("n_asked", "n_cached", "n_failed")),
        ),
        ("tokens in, out", ", ".join(number(record[key]) for key in ("prompt_tokens", "completion_tokens"))),
        ("cost of this run", cost),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _texts(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if record is None or not record["texts"]:
        return None
    rows = [
        [name, _digest(text.get("sha256")) or "–", "yes" if text.get("official") else "no: not comparable"]
        for name, text in record["texts"].items()
    ]
    return {"head": ["text", "sha256", "official"], "rows": rows}


def _digest(sha256: Any) -> str | None:
    return f"{str(sha256)[:_SHORT]}…" if sha256 else None


def _canaries(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not rows:
        return None
    return {
        "head": ["canary", "judge", "expected %", "got %", "prompts", "no verdict", "alarm"],
        "rows": [
            [
                row["name"], row["judge"], f"{row['expected']:.0f}",
                shown({"value": row["win_rate"], "ci95": row["ci95"]}, digits=0),
                number(row["n"]), number(row["n_missing"]), "⚠ yes" if row["alarm"] else "no",
            ]
            for row in rows
        ],
    }  # fmt: skip


def bins(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Win rate by how much longer the aligned answer is: one judge that sees length as a forest, all as a table."""
    if benchmark is None or len(benchmark["length_bins"]) < 2:
        return None
    judges = benchmark["judges"]
    drawn = next((judge for judge in judges if judge["role"] != "truth"), judges[0])
    told = benchmark["length_bins"]
    rows = [
        {
            "name": _gap(row["gap"]),
            "note": f"{row['n_prompts']} prompts",
            "estimate": row["judges"][drawn["judge"]],
            "kind": "judge",
        }
        for row in told
    ]
    table = [
        [_gap(row["gap"]), number(row["n_prompts"]), *(shown(row["judges"][j["judge"]]) for j in judges)]
        for row in told
    ]
    whom = benchmark["baseline"]["name"] if benchmark["baseline"]["published"] else "the unaligned model"
    return {
        "lead": f"Win rate in percent where the aligned answer is so many characters longer than {whom}'s; "
        f"judge: {drawn['label']}. A rate that climbs with length is a judge that likes length, or a model that is "
        "better where it says more: the two cannot be told apart here, which is why length is also controlled for.",
        "forest": forest(rows, label="Win rate by difference in length", even=EVEN),
        "table": {
            "head": ["characters longer", "prompts", *(f"win rate %, {judge['label']}" for judge in judges)],
            "rows": table,
        },
    }


def _gap(gap: Sequence[float]) -> str:
    low, high = (f"{end:+.0f}".replace("-", "−") for end in gap)
    return low if low == high else f"{low} to {high}"


def marks(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Marks of both models: a radar by category, the differences as a forest, turns and categories as a table."""
    if benchmark is None or benchmark["marks"] is None:
        return None
    told = benchmark["marks"]
    sides = list(told["models"])
    categories = [group for group in told["groups"] if group["kind"] == "category"]
    rows = [{"name": "all", "kind": "all"} | told["all"], *told["groups"]]
    return {
        "lead": f"Mean mark of 10, judge: {told['judge']}, {number(told['n_questions'])} questions; intervals are over "
        "questions, whose turns hang together. Categories are small: one in twenty differs by chance alone.",
        "radar": _radar(categories, sides) if len(categories) > 2 else None,
        "forest": _changes(rows) if len(sides) > 1 else None,
        "table": _marks_table(rows, sides),
        "turns": _turns_table(categories, sides) if categories else None,
        "missing": ", ".join(f"{side} {number(n)}" for side, n in told["n_missing"].items()),
    }


def _radar(categories: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> dict[str, str]:
    roles = {"aligned": "after", "unaligned": "before"}
    values = {
        roles[side]: [group["means"][side]["value"] for group in categories]
        for side in sorted(sides, reverse=True)  # the aligned model is drawn on top
    }
    return {
        "title": "By category",
        "note": "mean mark, from 0 in the middle to 10 at the rim; grey: unaligned, strong: aligned",
        "svg": plots.radar_plot([group["name"] for group in categories], values, top=10),
    }


def _changes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    laid = [
        {
            "name": row["name"],
            "note": f"{number(row['change']['n'])} questions: {_tally(row['change'])}",
            "estimate": row["change"],
            "kind": "truth" if row["kind"] == "all" else "judge",
        }
        for row in rows
    ]
    return forest(laid, label="Aligned minus unaligned, marks", even=0.0, digits=2)


def _tally(change: Mapping[str, Any]) -> str:
    return f"{change['wins_a']} better, {change['ties']} equal, {change['wins_b']} worse"


def _marks_table(rows: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> dict[str, Any]:
    both = len(sides) > 1
    table = [
        [
            row["name"],
            number(row["means"]["aligned"]["n"]),
            *(shown(row["means"][side], digits=2) for side in sides),
            *([shown(row["change"], digits=2)] if both else []),
        ]
        for row in rows
    ]
    head = ["", "questions", *sides, *(["difference"] if both else [])]
    return {"head": head, "rows": table}


def _turns_table(categories: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> dict[str, Any]:
    turns = list(categories[0]["turns"])
    rows = [
        [
            group["name"],
            *(number(group["turns"][turn]["means"][side]["value"], digits=2) for turn in turns for side in sides),
            *(_change(group["turns"][turn]["change"]) for turn in turns if len(sides) > 1),
        ]
        for group in categories
    ]
    head = [
        "",
        *(f"turn {turn}, {side}" for turn in turns for side in sides),
        *(f"difference, turn {turn}" for turn in turns if len(sides) > 1),
    ]
    return {"head": head, "rows": rows}


def _change(change: Mapping[str, Any]) -> str:
    return f"{number(change['value'], digits=2)} ({interval(change['ci95'], digits=2)})"
