"""Objectives by name: what the configuration and `trimtab objectives` read."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import cast

from trimtab.errors import ConfigError
from trimtab.objectives.batchwise import Aot, AotUnpaired, Sft
from trimtab.objectives.mixture import Mixture
from trimtab.objectives.modified import Modified
from trimtab.objectives.objective import Objective, Value
from trimtab.objectives.on_scores import BradleyTerry
from trimtab.objectives.pairwise import (
    Discopop,
    Dpo,
    DpoHinge,
    Dpop,
    ExoPair,
    Ipo,
    MarginSigmoid,
    Odpo,
    Robust,
    SigmoidNorm,
    Wpo,
)
from trimtab.objectives.pointwise import ApoDown, ApoHingeSoftplus, ApoHingeZero, ApoZero, BcoPair, NcaPair, SppoHard
from trimtab.objectives.reference_free import Orpo, Repo, Simpo
from trimtab.objectives.unpaired import ApoHingeZeroUnpaired, ApoZeroUnpaired, Kto

_CLASSES: dict[str, type[Objective]] = {
    cls.name: cls
    for cls in (
        Dpo, DpoHinge, ApoZero, ApoDown, ApoHingeZero, ApoHingeSoftplus, MarginSigmoid, ExoPair, Aot, AotUnpaired, Ipo,
        Robust, NcaPair, BcoPair, SppoHard, Discopop, Sft, SigmoidNorm, Simpo, Repo, Dpop, Orpo, Odpo, Wpo,
        Kto, ApoZeroUnpaired, ApoHingeZeroUnpaired,
    )
}  # fmt: skip

NAMES: tuple[str, ...] = tuple(_CLASSES)
_CLASSES[BradleyTerry.name] = BradleyTerry  # of `trimtab reward`: no choice among the objectives of a policy
MODIFIERS: tuple[str, ...] = tuple(f.name for f in fields(Modified) if f.name != "objective")


@dataclass(frozen=True)
class Row:
    """One line of `trimtab objectives`. `parameters` are (name, default); None is off."""

    name: str
    formula: str
    parameters: tuple[tuple[str, Value], ...]
    dead_zone: str
    source: str


def defaults(name: str) -> dict[str, Value]:
    """Own parameters of an objective (no modifiers) with their defaults; of a mixture, those of all its components.

    Raises ConfigError for an unknown name.
    """
    return {key: value for part in _weights(name) for key, value in _class(part)().parameters().items()}


def make(name: str, **parameters: object) -> Objective:
    """The objective of that name; parameters left out take its defaults, modifiers wrap it in `Modified`.

    `name:weight,name:weight` is a `Mixture`; each parameter goes to all of its components that have it.
    Raises ConfigError for an unknown name, a parameter that does not apply, or a value that cannot be trained with.
    """
    weights, own = _weights(name), defaults(name)
    for key in parameters:
        if key not in own and (key not in MODIFIERS or name == BradleyTerry.name):
            raise _misplaced_key_error(name, key, tuple(own))
    components = tuple((_build(part, parameters), weight) for part, weight in weights.items())
    objective = components[0][0] if _is_plain(name) else Mixture(components)
    modifiers = {key: value for key, value in parameters.items() if key in MODIFIERS}
    modifier_type = cast("Callable[..., Modified]", Modified)(objective, **modifiers)
    return modifier_type if modifier_type.parameters() != objective.parameters() else objective


def is_registered(objective: Objective) -> bool:
    """Whether `make` has it: by its name and parameters anybody can build an equal value.

    Raises ConfigError where it has the name of another.
    """
    inner = objective.objective if isinstance(objective, Modified) else objective
    if isinstance(inner, Mixture):
        return all(is_registered(part) for part, _ in inner.components)
    registered = _CLASSES.get(inner.name)
    if registered not in (None, type(inner)):
        raise ConfigError(
            f"{type(inner).__name__} calls itself {inner.name!r}, which is another objective",
            remedy="give the class a name of its own, or leave `name` out: then it is the class's",
        )
    return registered is not None


def table() -> tuple[Row, ...]:
    """Every objective at its defaults, in the order of the documentation."""
    rows = []
    for name in NAMES:
        objective = make(name)
        own = tuple(objective.parameters().items())
        rows.append(Row(name, objective.formula, own, objective.dead_zone, objective.source))
    return tuple(rows)


def _is_plain(name: str) -> bool:
    return not re.search("[:,]", str(name))


def _weights(name: str) -> dict[str, float]:
    """Weights by objective; 1 for a plain name."""
    if _is_plain(name):
        return {name: 1.0}
    weights: dict[str, float] = {}
    for text in name.split(","):
        part, colon, number = (piece.strip() for piece in text.partition(":"))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (part and colon and math.isfinite(weight)) or part in weights:
            raise ConfigError(
                f"objective {name!r}: {text.strip()!r} is not the name of an objective and its weight, each name once",
                remedy='a mixture is written "apo_zero:1,sft:0.2"',
            )
        weights[part] = weight
    return weights


def _build(name: str, parameters: Mapping[str, object]) -> Objective:
    build = _class(name)
    own = build().parameters()
    return build(**{key: value for key, value in parameters.items() if key in own})


def _class(name: str) -> Callable[..., Objective]:
    if name in _CLASSES:
        return _CLASSES[name]
    word = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
    if word in _ELSEWHERE:
        raise ConfigError(f"there is no objective {name!r}: {_ELSEWHERE[word]}", remedy=f"known: {', '.join(NAMES)}")
    near = difflib.get_close_matches(word, NAMES, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"there is no objective {name!r}", remedy=f"{hint}Known: {', '.join(NAMES)}")


# what people ask for, and why it is not here
_ELSEWHERE = {
    **dict.fromkeys(
        ("grpo", "ppo", "rloo", "reinforce"),
        "it samples answers while it trains, and trimtab learns from answers that are there",
    ),
    "cpo": "simpo with sft_weight is what comes nearest",
}


def _misplaced_key_error(name: str, key: str, own: tuple[str, ...]) -> ConfigError:
    """A parameter of another objective, or of none."""
    takes = f"{name} takes {', '.join(own) or 'no parameters'}"
    if name != BradleyTerry.name:
        takes += f"; modifiers are {', '.join(MODIFIERS)}"
    owners = [owner for owner in NAMES if key in defaults(owner)]
    if owners:
        return ConfigError(f"{key} does not apply to {name}; it belongs to {', '.join(owners)}", remedy=takes)
    near = difflib.get_close_matches(key, (*own, *MODIFIERS, *PARAMETERS), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"no objective has a parameter {key!r}", remedy=hint + takes)


PARAMETERS: tuple[str, ...] = tuple(dict.fromkeys(key for name in NAMES for key in defaults(name)))
