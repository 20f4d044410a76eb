"""The seam between a loss and the engine: what every objective answers, and how its parameters are checked.

Shape suffix: P pairs. An objective is a frozen value. It sees no model, device or config tree, and it does not average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios

Value = float | bool | None

# Summed log-ratios seldom leave ±50 nats in a run, and pass 1 nat within its first steps (arXiv 2508.08466 §4.2.1
# saw the first at m/β = 10 already, and stagnation from m/β = 1 downwards). Per token the same is true of ±2 nats.
LINEAR_NATS, LINEAR_NATS_PER_TOKEN, STARVED_NATS = 50.0, 2.0, 1.0


@dataclass(frozen=True)
class Interval:
    """The values a parameter may take; `str()` reads as the end of "it must be …"."""

    low: float
    high: float = math.inf
    closed_low: bool = False
    closed_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.closed_low else value > self.low
        below = value <= self.high if self.closed_high else value < self.high
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"at least {self.low:g}" if self.closed_low else f"above {self.low:g}"
        opening, closing = "[" if self.closed_low else "(", "]" if self.closed_high else ")"
        return f"in {opening}{self.low:g}, {self.high:g}{closing}"


POSITIVE = Interval(0.0)
NOT_NEGATIVE = Interval(0.0, closed_low=True)
SMOOTHING = Interval(0.0, 0.5, closed_low=True)


def parameter(default: float | None, interval: Interval) -> Any:  # as dataclasses.field is typed
    """A dataclass field that is checked when the value is built; a default of None makes it optional."""
    return field(default=default, metadata={"interval": interval})


class Objective:
    """Base of every objective. A subclass is a frozen dataclass whose fields are its parameters.

    Class attributes: `name`, `formula` and `source` (plain text; what a class leaves out is said from its own name,
    never taken from its base, whose loss it may have changed); `needs_reference` (False: reference log-probs are
    not read); `per_token` (True: r is divided by the response's length); `batch_coupled` (True: the loss of a pair
    depends on the others, so `loss` must see the whole optimizer batch at once); `ld_alpha` (see `token_weights`);
    `on_scores` (True: it reads the scores of a reward model, not log-probs); `is_unpaired` (True: its rows are single
    responses with a label, not pairs); `needs_kl` (True: it wants `with_kl` before each batch); `needs_score_gaps`
    (True: its pairs were scored); `needs_log_weights` (True: it reads how likely each token was against the others of
    the vocabulary, see `LogRatios`); `imitates` (True: it reads chosen responses alone, so that a row need not have
    another); `is_elementary` (False: made of other objectives).
    """

    name: str
    formula: str
    source: str
    needs_reference: bool = True
    per_token: bool = False
    batch_coupled: bool = False
    is_elementary: bool = True
    ld_alpha: float | None = None
    on_scores: bool = False
    is_unpaired: bool = False
    needs_kl: bool = False
    needs_score_gaps: bool = False
    needs_log_weights: bool = False
    imitates: bool = False
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        place = f"{cls.__module__}.{cls.__qualname__}"
        for attribute, text in {"name": cls.__name__, "formula": f"loss() of {place}", "source": place}.items():
            if attribute not in cls.__dict__:
                setattr(cls, attribute, text)

    def __post_init__(self) -> None:
        """Check every parameter; whole numbers become floats. Raises ConfigError with the remedy."""
        for f in fields(self):
            if (interval := f.metadata.get("interval")) is None:
                continue
            value, default = getattr(self, f.name), cast("float | None", f.default)
            if value is None and default is None:
                continue
            object.__setattr__(self, f.name, _validate(self.name, f.name, value, interval=interval, default=default))

    @property
    def beta(self) -> float:
        """β. Objectives without one report r itself as their reward."""
        return 1.0

    def loss(self, log_ratios: LogRatios) -> Tensor:
        """Loss of each pair, [P], not averaged, in the dtype of the log-probs."""
        raise NotImplementedError

    def ratios(self, log_ratios: LogRatios) -> tuple[Tensor, Tensor]:
        """(r_w, r_l), each [P]: log-ratios as this objective reads them (nats, or nats a token if `per_token`).

        Where no reference is needed r is the policy's own log-prob.
        """
        ratios = log_ratios.per_token() if self.per_token else log_ratios
        if self.needs_reference:
            return ratios.chosen, ratios.rejected
        return ratios.policy_chosen, ratios.policy_rejected

    def rewards(self, log_ratios: LogRatios) -> tuple[Tensor, Tensor]:
        """(β·r_w, β·r_l), each [P]. The only definition of a reward in this project."""
        r_w, r_l = self.ratios(log_ratios)
        return self.beta * r_w, self.beta * r_l

    def reward_gap(self, log_ratios: LogRatios) -> Tensor:
        """z = β(r_w − r_l), [P]: all that a pairwise objective depends on."""
        r_w, r_l = self.ratios(log_ratios)
        return self.beta * (r_w - r_l)

    def step_zero(self) -> float | None:
        """Loss of any pair while policy = reference; None where the data decide it."""
        return None

    @property
    def dead_zone(self) -> str:
        """Where the gradient is exactly zero, in words and in nats; begins with "none" where there is no such zone."""
        return "none"

    @property
    def has_dead_zone(self) -> bool:
        """False where every response stays active (but for underflow), so that screening cannot save anything."""
        return False

    def at(self, progress_epochs: float) -> Objective:  # noqa: ARG002  # constant, unless an objective has a schedule
        """The objective in force after that many epochs. Ask the configured value each time, not the last answer."""
        return self

    def with_kl(self, kl: float) -> Objective:  # noqa: ARG002  # read by those that need it
        """The objective where the policy's divergence from the reference, in nats a response, is estimated as `kl`."""
        return self

    def parameters(self) -> dict[str, Value]:
        """Parameters by name; of those in the registry `make(objective.name, **objective.parameters())` is equal."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def reach(self) -> float | None:
        """m/β: how far (nats, or nats a token) r must go before a hinge lets go of it; None where nothing does."""
        return None

    def remarks(self) -> tuple[str, ...]:
        """What the parameters imply that their names do not say, apart from the reach."""
        return ()

    def notices(self) -> tuple[str, ...]:
        """Sentences to print when a run starts."""
        return reach_notices(self.reach(), per_token=self.per_token) + self.remarks()

    def token_weights(self, chosen_length: int, rejected_length: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Weight of each token's log-prob in the sum over its response: (chosen, rejected), for policy AND reference.

        1 for the first min(chosen_length, rejected_length) tokens, `ld_alpha` for those beyond; all 1 without it.
        Source: LD-DPO, arXiv 2409.06411; that the reference is weighted too is TRL 1.16's reading, and ours.
        """
        tail = 1.0 if self.ld_alpha is None else self.ld_alpha
        n_shared = min(chosen_length, rejected_length)
        return (
            (1.0,) * n_shared + (tail,) * (chosen_length - n_shared),
            (1.0,) * n_shared + (tail,) * (rejected_length - n_shared),
        )


def reach_notices(reach: float | None, *, per_token: bool) -> tuple[str, ...]:
    """Warn of a hinge that nothing will reach, or that nearly everything passes at once."""
    if reach is None:
        return ()
    unit, far = ("nats a token", LINEAR_NATS_PER_TOKEN) if per_token else ("nats", LINEAR_NATS)
    if reach >= far:
        return (
            f"margin / beta = {reach:g} {unit}: log-ratios hardly ever get that far, so expect the linear regime "
            "(every response active to the end); raise beta or lower margin for a hinge that selects",
        )
    if not per_token and reach <= STARVED_NATS:
        return (
            f"margin / beta = {reach:g} {unit}: most responses leave the hinge within the first steps, so expect a "
            "starved run; lower beta or raise margin",
        )
    return ()


def _validate(owner: str, key: str, value: object, *, interval: Interval, default: float | None) -> float:
    remedy = f"set {key} to a number {interval}; " + (
        "leave it out to turn it off" if default is None else f"the default is {default:g}"
    )
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{owner}: {key} = {value!r} is not a number", remedy=remedy)
    if not math.isfinite(value):
        raise ConfigError(f"{owner}: {key} = {value} is not a finite number", remedy=remedy)
    if value not in interval:
        raise ConfigError(f"{owner}: {key} = {value:g} is not {interval}", remedy=remedy)
    return float(value)
