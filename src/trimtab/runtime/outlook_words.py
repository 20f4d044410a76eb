"""The sentences about what a run is heading for, and what would take it elsewhere."""

from __future__ import annotations

from trimtab.analysis.outlook import Outlook, Remedy
from trimtab.objectives import Objective
from trimtab.objectives.objective import Value

_MEANING = {
    "linear": "nearly every response pulls to the end as hard as at first, and another objective would have given "
    "nearly the same model",
    "selective": "a good share of the responses stops pulling",
    "starved": "next to nothing pulls after half of the steps",
}


def heading(outlook: Outlook, objective: Objective, *, learning_rate: float) -> str:
    """What the first steps say, in one paragraph; with the remedy where the regime wants one."""
    start = f"after step {outlook.step:,} of {outlook.steps:,} "
    if outlook.is_decided:
        start += f"the run is heading for the {outlook.regime} regime: {_MEANING.get(outlook.regime, '')}"
    else:
        names = " or ".join(dict.fromkeys(outlook.regimes))
        start += f"it is too early to say where the run is heading: {names}, by the middle estimate {outlook.regime}"
    sentences = [start, _nats(outlook, objective)]
    if outlook.remedy is not None:
        sentences.append(
            remedy(outlook.remedy, outlook.regime, beta=objective.parameters().get("beta"), learning_rate=learning_rate)
        )
    return ". ".join(sentences)


def remedy(remedy: Remedy, regime: str, *, beta: Value, learning_rate: float) -> str:
    """`To leave the linear regime: about 12 times this learning rate …`, and the same for β, where there is one."""
    least, middle, most = remedy.rate
    rate = (
        f"To leave the {regime} regime: about {_factor(middle)} times this learning rate, which is "
        f"{learning_rate * middle:.2g} ({_factor(least)} to {_factor(most)} times)"
    )
    if beta is None:
        return rate
    least_beta, middle_beta, most_beta = (beta * factor for factor in remedy.beta)
    word = "≥" if regime == "linear" else "≤"
    return f"{rate}; or objective.beta {word} {middle_beta:.2g} ({least_beta:.2g} to {most_beta:.2g})"


def _nats(outlook: Outlook, objective: Objective) -> str:
    unit = "nats a token" if objective.per_token else "nats"
    text = (
        f"At its end mean log-ratios of {_triple(outlook.chosen)} {unit} (chosen) and {_triple(outlook.rejected)} "
        "(rejected) are to be expected"
    )
    if outlook.reach is None:
        return f"{text}; {objective.name} pulls hardly less at any distance"
    return f"{text}; {objective.name} pulls half as hard once each side has moved {outlook.reach:.3g}"


def _factor(value: float) -> str:
    """Two significant digits, without an exponent."""
    return f"{float(f'{value:.2g}'):,g}"


def _triple(values: tuple[float, float, float]) -> str:
    return f"{values[1]:+.2g} ({min(values):+.2g} to {max(values):+.2g})".replace("-", "−")
