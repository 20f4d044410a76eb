"""What `trimtab calibrate` shows: sentences, terminal lines, and the page. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis import plots
from trimtab.analysis.calibration import Bin, Calibration
from trimtab.analysis.intervals import NO_INTERVAL
from trimtab.reporting.estimates import direction, scaled
from trimtab.reporting.sentences import Sentence, Tone, sentence, signed
from trimtab.reporting.text import interval, number, shown, significant
from trimtab.version import __version__

Numbers = Mapping[str, Any]

_NOTES = (
    "σ(gap) is read as Bradley and Terry do: the probability that the chosen response is preferred. Only the sigmoid "
    "losses are trained to make it one; a hinge stops at its margin, so its gaps say where training stopped.",
    "The most likely token's probability is compared with how often it is the token that comes, over all tokens of the "
    "chosen responses. Negative log-likelihood, entropy and divergence are in nats a token, over the whole vocabulary.",
    "Intervals resample held-out pairs (and seeds, where there are several), never tokens, which hang together. "
    "Changes are paired: the same responses under both models.",
    "The expected calibration error has no interval: next to 0 a bootstrap of it misleads. Beside it stands what "
    "chance alone would show on this sample, were the model perfectly calibrated. Several seeds: the mean of theirs.",
    "The held-out responses are the data's, not the model's own: one may move away from them and still answer well.",
)


_CONFIDENCE: dict[str, tuple[str, Tone]] = {
    "above": ("it is **over-confident**", "warn"),
    "below": ("it is **under-confident**", "warn"),
}
_LIKELIHOOD: dict[str, tuple[str, Tone]] = {
    "above": ("**worse** than the unaligned one", "warn"),
    "below": ("**better** than the unaligned one", "good"),
}
_WIDTH = 42


def headline(told: Numbers) -> list[Sentence]:
    """The answers, in three sentences."""
    return [_reward_sentence(told), _token_sentence(told["next_token"]), _drift_sentence(told["drift"])]


def _reward_sentence(told: Numbers) -> Sentence:
    after = told["reward_gap"]["after"]
    right, sure = scaled(after["accuracy"], 100), scaled(after["confidence"], 100)
    over = direction(after["over_confidence"], 0.0)
    said, tone = _CONFIDENCE.get(
        over, ("on so many pairs over- or under-confidence is **not distinguishable**", "even")
    )
    return sentence(
        f"The reward is right on **{number(right['value'])} %** of {number(told['n_pairs'])} held-out pairs "
        f"({interval(right['ci95'])}) and {number(sure['value'])} % sure of itself on average: {said}. "
        f"{_error(after)}, Brier score {number(after['brier']['value'], digits=3)}.",
        tone,
    )


def _token_sentence(told: Numbers) -> Sentence:
    change, before, after = told["change"]["nll"], told["unaligned"], told["aligned"]
    said, tone = _LIKELIHOOD.get(direction(change, 0.0), ("**not distinguishable** from the unaligned one", "even"))
    over = {side: 100 * (told[side]["over_confidence"]["value"] or 0.0) for side in ("unaligned", "aligned")}
    return sentence(
        f"At the next token of chosen responses the aligned model is {said}: perplexity "
        f"{significant(before['perplexity']['value'])} before, {significant(after['perplexity']['value'])} after "
        f"({signed(change['value'], digits=4)} nats a token, {interval(change['ci95'], digits=4)}). Its calibration "
        f"error is {number(after['ece'], digits=4)} against {number(before['ece'], digits=4)}, its over-confidence "
        f"{signed(over['aligned'], digits=2)} against {signed(over['unaligned'], digits=2)} points, its entropy "
        f"{significant(after['entropy']['value'])} against {significant(before['entropy']['value'])} nats.",
        tone,
    )


def _drift_sentence(told: Numbers) -> Sentence:
    chosen, rejected, apart = told["log_ratio_chosen"], told["log_ratio_rejected"], told["divergence"]
    return sentence(
        f"It moved **{significant(apart['value'])} nats a token** from its starting point (KL on chosen responses); "
        f"the log-ratio is {signed(chosen['value'], digits=4)} nats a token on chosen and "
        f"{signed(rejected['value'], digits=4)} on rejected responses.",
        "plain",
    )


def _error(side: Numbers) -> str:
    chance = side["ece_by_chance"]
    by_chance = "" if chance["mean"] is None else (
        f" (chance alone: {number(chance['mean'], digits=3)}, up to {number(chance['below95'], digits=3)})"
    )  # fmt: skip
    return f"Expected calibration error {number(side['ece'], digits=3)}{by_chance}"


# --- tables ----------------------------------------------------------------------------------------------------------


def _reward_rows(told: Numbers) -> list[list[str]]:
    sides = [side for side in (told["before"], told["after"]) if side is not None]
    return [
        ["pairs it gets right, %", *(shown(scaled(side["accuracy"], 100)) for side in sides)],
        ["mean confidence, %", *(shown(scaled(side["confidence"], 100)) for side in sides)],
        ["over-confidence, points", *(shown(scaled(side["over_confidence"], 100)) for side in sides)],
        ["Brier score", *(shown(side["brier"], digits=4) for side in sides)],
        *_error_rows(sides),
        ["mean reward gap, nats", *(shown(side["reward_gap"], digits=3) for side in sides)],
    ]


def _error_rows(sides: Sequence[Numbers]) -> list[list[str]]:
    return [
        ["expected calibration error", *(number(side["ece"], digits=4) for side in sides)],
        ["… by chance alone, mean", *(number(side["ece_by_chance"]["mean"], digits=4) for side in sides)],
        ["… by chance alone, 95 % below", *(number(side["ece_by_chance"]["below95"], digits=4) for side in sides)],
    ]


_TOKEN_ROWS = (
    ("negative log-likelihood, nats a token", "nll", 1, 4),
    ("entropy, nats a token", "entropy", 1, 4),
    ("most likely token came, %", "accuracy", 100, 2),
    ("over-confidence, points", "over_confidence", 100, 3),
    ("Brier score of the most likely", "brier", 1, 4),
)


def _token_rows(told: Numbers) -> list[list[str]]:
    before, after, change = told["unaligned"], told["aligned"], told["change"]
    rows = [
        ["perplexity", shown(before["perplexity"], digits=3), shown(after["perplexity"], digits=3),
         f"× {shown(change['perplexity_ratio'], digits=4)}"],
    ]  # fmt: skip
    rows += [
        [label, *(shown(scaled(side[name], factor), digits=digits) for side in (before, after, change))]
        for label, name, factor, digits in _TOKEN_ROWS
    ]
    return [*rows, *([*row, ""] for row in _error_rows([before, after]))]


def _drift_rows(told: Numbers) -> list[list[str]]:
    return [
        ["KL(aligned ‖ unaligned), chosen responses", shown(told["divergence"], digits=5)],
        ["log-ratio, chosen responses", shown(told["log_ratio_chosen"], digits=5)],
        ["log-ratio, rejected responses", shown(told["log_ratio_rejected"], digits=5)],
    ]


def lines(told: Numbers) -> list[str]:
    """The measurement for a terminal."""
    tokens = told["next_token"]
    before = told["reward_gap"]["before"] is not None
    said = [*(one["text"].replace("**", "") for one in told["headline"]), ""]
    said += [f"σ(reward gap) on held-out pairs: {'before, after' if before else 'after'}"]
    said += [] if before else [f"  {told['reward_gap']['note']}"]
    said += _laid(_reward_rows(told["reward_gap"]))
    said += ["", f"next token of chosen responses, {number(told['n_tokens']['chosen'])} tokens: before, after, change"]
    said += _laid(_token_rows(tokens))
    said += ["", "drift from the starting point, nats a token", *_laid(_drift_rows(told["drift"]))]
    return said


def _laid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart; the labels of all three tables take the same width."""
    _, *cells = (max(map(len, column)) for column in zip(*rows, strict=True))
    widths = (_WIDTH, *cells)
    return ["  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


# --- the page --------------------------------------------------------------------------------------------------------


def page(told: Numbers) -> dict[str, Any]:
    """Everything that the template prints."""
    return {
        "title": f"{told['model']} aligned with {told['objective']['name']}: calibration",
        "subject": [
            ("objective", told["objective"]["name"]),
            ("data", told["data"]),
            ("adapter", told["adapter"]),
            ("held-out pairs", number(told["n_pairs"])),
            ("seeds" if len(told["seeds"]) > 1 else "seed", ", ".join(str(seed) for seed in told["seeds"])),
        ],
        "headline": told["headline"],
        "sections": [_reward_section(told), _token_section(told), _drift_section(told), *_seed_section(told)],
        "notes": _NOTES,
        "command": told["command"],
        "trimtab": __version__,
    }


def _reward_section(told: Numbers) -> dict[str, Any]:
    before, after = told["reward_gap"]["before"], told["reward_gap"]["after"]
    lead = "Of every held-out pair the reward gap predicts which response is preferred, with confidence σ(|gap|)."
    return {
        "anchor": "reward",
        "name": "Reward gap",
        "title": "Does the reward gap mean what it says?",
        "lead": lead if before is not None else f"{lead} {told['reward_gap']['note']}",
        "plot": {
            "title": "Reliability",
            "note": f"{_error(after)}; a dot grows with its pairs",
            "svg": plots.reliability_plot(None if before is None else _for_plot(before), _for_plot(after)),
        },
        "table": {
            "head": ["", *([] if before is None else ["before"]), "after"],
            "rows": _reward_rows(told["reward_gap"]),
        },
        "folded": [{"title": "Table: reliability", "table": _bins({"before": before, "after": after}, "pairs")}],
    }


def _token_section(told: Numbers) -> dict[str, Any]:
    before, after = told["next_token"]["unaligned"], told["next_token"]["aligned"]
    return {
        "anchor": "tokens",
        "name": "Next token",
        "title": "Is the model as sure of the next token as it is right?",
        "lead": f"{number(told['n_tokens']['chosen'])} tokens of held-out chosen responses, under the unaligned and "
        "the aligned model. A negative change of likelihood, entropy or Brier score is a fall.",
        "plot": {
            "title": "Reliability",
            "note": "how often the most likely token came, against its probability; a dot grows with its tokens",
            "svg": plots.token_reliability_plot(_for_plot(before), _for_plot(after)),
        },
        "table": {"head": ["", "before", "after", "change, paired"], "rows": _token_rows(told["next_token"])},
        "folded": [{"title": "Table: reliability", "table": _bins({"before": before, "after": after}, "tokens")}],
    }


def _drift_section(told: Numbers) -> dict[str, Any]:
    return {
        "anchor": "drift",
        "name": "Drift",
        "title": "How far did it go?",
        "lead": "Aligned against unaligned model along held-out responses, in nats a token. The divergence is exact: "
        "over the whole vocabulary before every token of the chosen responses.",
        "plot": None,
        "table": {"head": ["", "nats a token"], "rows": _drift_rows(told["drift"])},
        "folded": [],
    }


def _seed_section(told: Numbers) -> list[dict[str, Any]]:
    if not told["by_seed"]:
        return []
    by = told["by_seed"]
    rows = [
        ["pairs it gets right, %", *(shown(scaled(one["reward_gap"]["after"]["accuracy"], 100)) for one in by)],
        ["calibration error, σ(gap)", *(number(one["reward_gap"]["after"]["ece"], digits=3) for one in by)],
        ["Brier score, σ(gap)", *(shown(one["reward_gap"]["after"]["brier"], digits=3) for one in by)],
        ["perplexity after", *(shown(one["next_token"]["aligned"]["perplexity"], digits=3) for one in by)],
        ["calibration error, next token", *(number(one["next_token"]["aligned"]["ece"], digits=4) for one in by)],
        ["KL, nats a token", *(shown(one["drift"]["divergence"], digits=5) for one in by)],
    ]
    return [
        {
            "anchor": "seeds",
            "name": "Seeds",
            "title": "Seed by seed",
            "lead": "The intervals of one seed speak of other pairs, not of other seeds; those above speak of both.",
            "plot": None,
            "table": {"head": ["", *(f"seed {one['seed']}" for one in by)], "rows": rows},
            "folded": [],
        }
    ]


def _bins(sides: Mapping[str, Numbers | None], what: str) -> dict[str, Any]:
    rows = [
        [
            f"{side}, {number(low, digits=2)} to {number(high, digits=2)}", number(n),
            number(predicted, digits=3), number(observed, digits=3),
        ]
        for side, told in sides.items()
        if told is not None
        for low, high, n, predicted, observed in told["bins"]
    ]  # fmt: skip
    return {"head": ["confidence", what, "mean confidence", "share right"], "rows": rows}


def _for_plot(side: Numbers) -> Calibration:
    bins: Sequence[Bin] = tuple(Bin(*row) for row in side["bins"])
    return Calibration(
        n=sum(one.count for one in bins), accuracy=side["accuracy"]["value"], accuracy_ci95=NO_INTERVAL,
        ece=side["ece"], brier=side["brier"]["value"], bins=tuple(bins),
    )  # fmt: skip
