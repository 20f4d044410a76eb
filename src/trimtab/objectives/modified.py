"""Modifiers: keys that change what any objective reads, or add to it, without being part of its formula.

Shape suffix: P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from trimtab.errors import ConfigError
from trimtab.objectives.mixture import Mixture
from trimtab.objectives.objective import NOT_NEGATIVE, Interval, Objective, Value, parameter

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True, kw_only=True)
class Modified(Objective):
    """An objective with modifiers. It answers to the name of the objective inside.

    length_normalize: r is divided by the length of its response, as `sigmoid_norm` does to DPO; rewards follow.
    ld_alpha: LD-DPO (arXiv 2409.06411). Tokens beyond the shorter response's length count α times, in policy and
        reference. The sums are made before an objective sees them: see `token_weights`. Lengths are not weighted.
    sft_weight: adds that many times −ln π_w/|y_w|, the chosen response's mean NLL a token (Iterative RPO,
        arXiv 2404.19733 Eq. 1). It is a mean within each pair, so pairs stay independent; objective `sft` is TRL's mean
        over all tokens of a batch. Both agree where the chosen responses are equally long.
    """

    objective: Objective = field(kw_only=False)
    length_normalize: bool = False
    ld_alpha: float | None = parameter(None, Interval(0.0, 1.0, closed_low=True, closed_high=True))
    sft_weight: float = parameter(0.0, NOT_NEGATIVE)

    is_elementary = False

    def __post_init__(self) -> None:
        inner = self.objective
        if isinstance(inner, Modified):
            raise ConfigError(
                f"{inner.name}: modifiers are given twice", remedy="give all of them in one Modified(...)"
            )
        terms = [inner.formula]
        if self.length_normalize:
            terms.append("each r (and log-prob) divided by its response's length")
        if self.ld_alpha is not None:
            terms.append(f"tokens beyond the shorter response weighted {self.ld_alpha}")
        if self.sft_weight:
            terms.append(f"plus {self.sft_weight} times −ln π_w/|y_w|")
        self._set(name=inner.name, formula="; ".join(terms), source=inner.source)
        super().__post_init__()
        self._refuse_what_does_not_apply()
        self._set(
            needs_reference=inner.needs_reference,
            batch_coupled=inner.batch_coupled,
            is_unpaired=inner.is_unpaired,
            needs_kl=inner.needs_kl,
            needs_score_gaps=inner.needs_score_gaps,
            needs_log_weights=inner.needs_log_weights,
            imitates=inner.imitates,
            per_token=inner.per_token or self.length_normalize,
        )

    def _set(self, **attributes: str | bool) -> None:
        """What a plain objective has on its class, this one takes from the objective inside."""
        for key, value in attributes.items():
            object.__setattr__(self, key, value)

    def _refuse_what_does_not_apply(self) -> None:
        name, parts = self.name, self._parts
        if not isinstance(self.length_normalize, bool):
            raise ConfigError(
                f"{name}: length_normalize = {self.length_normalize!r} is neither true nor false",
                remedy="set it to true or false",
            )
        normal = [part.name for part in parts if part.per_token or part.name == "sft"]
        if self.length_normalize and normal:
            raise ConfigError(
                f"length_normalize does not apply to {' and '.join(normal)}, which is length-normalised by itself",
                remedy="leave length_normalize out",
            )
        plain = [part.name for part in parts if not part.needs_reference]
        if self.ld_alpha is not None and plain:
            raise ConfigError(
                f"ld_alpha does not apply to {' and '.join(plain)}, which reads no log-ratios",
                remedy="leave ld_alpha out, or choose an objective that uses the reference",
            )
        if self.ld_alpha is not None and self.objective.is_unpaired:
            raise ConfigError(
                f"ld_alpha does not apply to {name}: a single response has no partner whose length it could be held to",
                remedy="leave ld_alpha out",
            )
        if self.length_normalize and self.objective.needs_kl:
            raise ConfigError(
                f"length_normalize does not apply to {name}, whose KL is of whole responses",
                remedy="leave length_normalize out, or choose apo_zero_unpaired",
            )
        if self.ld_alpha is not None and self.sft_weight:
            raise ConfigError(
                "ld_alpha and sft_weight do not go together: the likelihood would be that of a response with a "
                "discounted tail",
                remedy="leave one of them out",
            )
        if self.sft_weight and any(part.name == "sft" for part in parts):
            raise ConfigError("sft_weight does not apply to sft, which is that term", remedy="leave sft_weight out")

    @property
    def _parts(self) -> tuple[Objective, ...]:
        inner = self.objective
        return tuple(part for part, _ in inner.components) if isinstance(inner, Mixture) else (inner,)

    @property
    def beta(self) -> float:
        return self.objective.beta

    def _read(self, log_ratios: LogRatios) -> LogRatios:
        return log_ratios.per_token() if self.length_normalize else log_ratios

    def loss(self, log_ratios: LogRatios) -> Tensor:
        loss_P = self.objective.loss(self._read(log_ratios))
        if not self.sft_weight:
            return loss_P
        return loss_P - self.sft_weight * log_ratios.per_token().policy_chosen

    def step_zero(self) -> float | None:
        return None if self.sft_weight else self.objective.step_zero()

    @property
    def has_dead_zone(self) -> bool:
        return self.objective.has_dead_zone

    @property
    def dead_zone(self) -> str:
        zone = self.objective.dead_zone
        if not self.has_dead_zone:
            return zone
        if self.length_normalize:
            zone += ", a token"
        return zone + "; closed for the chosen response by sft_weight" if self.sft_weight else zone

    def at(self, progress_epochs: float) -> Modified:
        return replace(self, objective=self.objective.at(progress_epochs))

    def with_kl(self, kl: float) -> Modified:
        return replace(self, objective=self.objective.with_kl(kl))

    def parameters(self) -> dict[str, Value]:
        parameters = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "objective"}
        off = {f.name: f.default for f in fields(self)}
        return self.objective.parameters() | {key: value for key, value in parameters.items() if value != off[key]}

    def reach(self) -> float | None:
        return self.objective.reach()

    def remarks(self) -> tuple[str, ...]:
        remarks = list(self.objective.remarks())
        if self.sft_weight and self.has_dead_zone:
            remarks.append(
                f"sft_weight = {self.sft_weight:g} gives every chosen response a gradient, in the dead zone too; only "
                "rejected responses can be inactive"
            )
        if self.length_normalize and self.beta < 1.0:
            remarks.append(
                f"length_normalize with beta = {self.beta:g}: log-ratios are now nats a token, for which a beta of 2 "
                "to 10 is customary"
            )
        return tuple(remarks)
