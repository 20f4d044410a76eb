"""Several objectives at once, each with a weight: `apo_zero:1,sft:0.2`.

Shape suffix: P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trimtab.errors import ConfigError
from trimtab.objectives.objective import POSITIVE, Objective, Value

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.objectives.log_ratios import LogRatios


@dataclass(frozen=True)
class Mixture(Objective):
    """Σ weight · loss. One reward for all: that of the first component that needs a reference, or of the first.

    Components that share a parameter (β above all) share its value. Every component takes its own part of a batch as
    it would alone: per token, batch-coupled, or reading no reference.
    """

    components: tuple[tuple[Objective, float], ...]

    is_elementary = False

    def __post_init__(self) -> None:
        if len({objective.is_unpaired for objective, _ in self.components if objective.name != "sft"}) > 1:
            raise ConfigError(
                "a mixture of objectives of which some read pairs, and some single responses with a label",
                remedy="mix objectives of one kind (sft goes with both)",
            )
        names = [objective.name for objective, _ in self.components]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(
                f"a mixture of {', '.join(names) or 'nothing'}", remedy="name two objectives or more, each once"
            )
        for objective, weight in self.components:
            if objective.on_scores:
                raise ConfigError(
                    f"a mixture of {' and '.join(names)}",
                    remedy=f"{objective.name} reads scores and trains alone; leave it out",
                )
            if not objective.is_elementary:
                raise ConfigError(
                    f"a mixture of {objective.name} with modifiers of its own",
                    remedy="modifiers are given once, to the mixture: Modified(Mixture(…), …)",
                )
            if not isinstance(weight, (int, float)) or isinstance(weight, bool) or weight not in POSITIVE:
                raise ConfigError(f"{objective.name}: weight {weight!r}", remedy=f"a weight is a number {POSITIVE}")
        self._refuse_two_values()
        parts = self.components
        for key, value in {
            "name": ",".join(f"{objective.name}:{weight:g}" for objective, weight in parts),
            "formula": " + ".join(f"{weight:g}·({objective.formula})" for objective, weight in parts),
            "source": "; ".join(f"{objective.name}: {objective.source}" for objective, _ in parts),
            "needs_reference": any(objective.needs_reference for objective, _ in parts),
            "batch_coupled": any(objective.batch_coupled for objective, _ in parts),
            "per_token": self._leading.per_token,
            "is_unpaired": any(objective.is_unpaired for objective, _ in parts),
            "needs_score_gaps": any(objective.needs_score_gaps for objective, _ in parts),
            "needs_log_weights": any(objective.needs_log_weights for objective, _ in parts),
            "needs_kl": any(objective.needs_kl for objective, _ in parts),
        }.items():
            object.__setattr__(self, key, value)

    def _refuse_two_values(self) -> None:
        owners: dict[str, tuple[str, Value]] = {}
        for objective, _ in self.components:
            for key, value in objective.parameters().items():
                owner, other = owners.setdefault(key, (objective.name, value))
                if other != value:
                    raise ConfigError(
                        f"a mixture of {owner} with {key} = {other} and {objective.name} with {key} = {value}",
                        remedy=f"a mixture has one {key}: set it",
                    )

    @property
    def _leading(self) -> Objective:
        """Whose rewards are the mixture's."""
        objectives = [objective for objective, _ in self.components]
        return next((objective for objective in objectives if objective.needs_reference), objectives[0])

    @property
    def beta(self) -> float:
        return self._leading.beta

    def ratios(self, log_ratios: LogRatios) -> tuple[Tensor, Tensor]:
        return self._leading.ratios(log_ratios)

    def loss(self, log_ratios: LogRatios) -> Tensor:
        first, *others = (weight * objective.loss(log_ratios) for objective, weight in self.components)
        return sum(others, first)

    def step_zero(self) -> float | None:
        total = 0.0
        for objective, weight in self.components:
            if (constant := objective.step_zero()) is None:
                return None
            total += weight * constant
        return total

    @property
    def has_dead_zone(self) -> bool:
        """Where each component has one: the gradient is zero where it is so in all of them."""
        return all(objective.has_dead_zone for objective, _ in self.components)

    @property
    def dead_zone(self) -> str:
        active = [objective.name for objective, _ in self.components if not objective.has_dead_zone]
        if active:
            return f"none: a gradient is left everywhere by {' and '.join(active)}"
        return "where all let go: " + "; ".join(f"{o.name}: {o.dead_zone}" for o, _ in self.components)

    def at(self, progress_epochs: float) -> Mixture:
        in_force = tuple((objective.at(progress_epochs), weight) for objective, weight in self.components)
        return self if in_force == self.components else replace(self, components=in_force)

    def with_kl(self, kl: float) -> Mixture:
        return replace(self, components=tuple((objective.with_kl(kl), weight) for objective, weight in self.components))

    def parameters(self) -> dict[str, Value]:
        return {key: value for objective, _ in self.components for key, value in objective.parameters().items()}

    def reach(self) -> float | None:
        return self._leading.reach() if self.has_dead_zone else None

    def remarks(self) -> tuple[str, ...]:
        return tuple(remark for objective, _ in self.components for remark in objective.remarks())
