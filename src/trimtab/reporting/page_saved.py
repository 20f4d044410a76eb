"""The page's block on compute saved: what was left out, the time that is estimated to have been saved, and how far to
trust it. No number is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

from trimtab.analysis import plots
from trimtab.reporting.text import duration, number, significant

Method = Literal["measured", "cost model", "unknown"]


def saved(told: Mapping[str, Any] | None, training: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Sentences, the curves of active rates and skipped shares, and a table by seed."""
    if told is None or training is None:
        return None
    entries = told["seeds"]
    alone = len(training["seeds"]) == 1
    named = [("" if alone else f"Seed {entry['seed']}: ", entry) for entry in entries]
    seeds = {entry["seed"] for entry in entries}
    curves = [entry["curves"] for entry in training["seeds"] if entry["seed"] in seeds]
    return {
        "lead": "A response whose gradient is exactly zero needs no backward pass. Leaving it out changes nothing but "
        "rounding; shrinking, where it was turned on, leaves out forward passes too and is an approximation.",
        "sentences": [
            name + sentence for name, entry in named for sentence in (_left_out(entry), _time(entry["time"]))
        ],
        "approximate": [name + _approximate(entry["shrinking"]) for name, entry in named if entry["shrinking"]],
        "plot": {
            "title": "Active and skipped",
            "note": "active responses by side; response tokens skipped (no backward pass) and shrunk (not computed)",
            "svg": plots.saved_plot(curves),
        },
        "table": _table(entries),
    }


def _left_out(entry: Mapping[str, Any]) -> str:
    shares = entry["shares"]
    text = f"{_percent(shares['skipped_backward'])} of the response tokens took no backward pass"
    if shares["skipped_forward"]:
        text += f"; {_percent(shares['skipped_forward'])} of all were not even computed"
    if entry["promoted_share"] is not None:
        text += (
            f". Of {number(entry['responses_screened'])} responses screened by a forward pass alone, "
            f"{number(entry['responses_promoted'])} ({_percent(entry['promoted_share'])}) turned out active and were "
            "computed again"
        )
    return f"{text}."


def _time(told: Mapping[str, Any]) -> str:
    if told["share"] is None:
        return "Time saved: not known; the steps' speeds are not recorded, or nearly everything was left out."
    outcome = f"{_percent(abs(told['share']), digits=0)} of the time was {'saved' if told['share'] >= 0 else 'lost'}"
    return (
        f"The steps took {duration(told['seconds'])}; dense they would have taken about "
        f"{duration(told['dense_seconds'])}, so about {outcome}. {_source(told)}"
    )


def _source(told: Mapping[str, Any]) -> str:
    method: Method = told["method"]
    match method:
        case "measured":
            n = told["n_dense_steps"]
            return (
                f"An estimate: all tokens at the run's own speed in the {number(n)} {'step' if n == 1 else 'steps'} "
                f"that left nothing out, {significant(told['dense_tokens_per_second'])} tokens a second."
            )
        case "cost model":
            return (
                "An estimate by counting, since every step left something out: forward 1, backward 2, on response "
                "tokens alone. Prompts are left out less often, so this is an upper bound."
            )
        case "unknown":
            return ""
        case _:
            assert_never(method)


def _approximate(told: Mapping[str, Any]) -> str:
    if told["rate"] is None:
        return "approximate: no response that was passed over was checked again, so what was missed is not known."
    return (
        f"approximate: {number(told['missed'])} of {number(told['rechecked'])} re-checked responses had become active "
        f"unseen (missed-violation rate {_percent(told['rate'])}), after {number(told['visits'])} visits passed over."
    )


def _table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def row(label: str, value: Any) -> list[str]:
        return [label, *(value(entry) for entry in entries)]

    def share(name: str) -> Any:
        return lambda entry: _percent(entry["shares"][name])

    def time(name: str, shown: Any) -> Any:
        return lambda entry: shown(entry["time"][name])

    rows = [
        row("response tokens without a backward pass", share("skipped_backward")),
        row("response tokens not computed at all", share("skipped_forward")),
        row("response tokens computed twice (promoted)", share("promoted")),
        row("responses screened", lambda entry: number(entry["responses_screened"])),
        row("of these found active (promoted)", lambda entry: _percent(entry["promoted_share"])),
        row("time of the steps", time("seconds", duration)),
        row("estimated dense time", time("dense_seconds", duration)),
        row("estimated from", time("method", str)),
        row("dense steps measured", time("n_dense_steps", number)),
        row("tokens a second", time("tokens_per_second", significant)),
        row("tokens a second, dense steps", time("dense_tokens_per_second", significant)),
    ]
    if any(entry["shrinking"] for entry in entries):
        rows.append(
            row("missed-violation rate (approximate)", lambda entry: _percent((entry["shrinking"] or {}).get("rate")))
        )
    return {"head": ["", *(f"seed {entry['seed']}" for entry in entries)], "rows": rows}


def _percent(share: float | None, *, digits: int = 1) -> str:
    return number(None) if share is None else f"{number(100.0 * share, digits=digits)}\u00a0%"
