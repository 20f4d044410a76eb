"""Which precision a run computes in, and what its noise means for what is learnt.

An objective reads log-ratios on a scale of its own: a hinge lets go of a response at m/β nats, a sigmoid bends over
about 1/β. Noise far below that scale decides nothing; noise near it would decide which responses are active.

The noise of a reward model's scores is not measured: there `auto` is float32.

`engine.dtype auto` takes the first precision that this processor is made for (`candidates`) whose noise, measured on
this model and these pairs, is harmless, and float32 where there is none. No timing has a say, so that runs repeat. The
choice is kept in the run folder: a resumed run does not choose again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimtab import store
from trimtab.engine import models
from trimtab.engine.models import Precision
from trimtab.engine.noise import Noise
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError
from trimtab.objectives import Objective
from trimtab.progress import Reporter
from trimtab.records import TokenPair, digest
from trimtab.runtime.model_loading import checked_scorer, load_unaligned
from trimtab.runtime.run_setup import RunSetup

HARMLESS = 0.1
"""Of the scale on which the objective reads log-ratios. A hinge whose edge is blurred by a tenth of its reach lets go
of a response a tenth too early or too late, and no more often the one than the other."""


@dataclass(frozen=True, slots=True)
class NoiseMeaning:
    """`tokens`: of the mean response. `nats`: standard deviation of its log-ratio (a token's, if `per_token`).
    `reach`: m/β, or 1/β of an objective without a margin, in the same unit."""

    precision: Precision
    tokens: float
    nats: float
    beta: float
    reach: float
    has_margin: bool
    per_token: bool

    @classmethod
    def of(cls, precision: Precision, noise: Noise, objective: Objective, pairs: Sequence[TokenPair]) -> NoiseMeaning:
        lengths = [len(ids) for pair in pairs for _, ids in pair.sides]
        tokens = sum(lengths) / len(lengths)
        nats = noise.of_log_ratio(tokens) / (tokens if objective.per_token else 1)
        margin = objective.reach()
        reach = 1 / objective.beta if margin is None else margin
        return cls(precision, tokens, nats, objective.beta, reach, margin is not None, objective.per_token)

    @property
    def share(self) -> float:
        return self.nats / self.reach

    @property
    def is_harmless(self) -> bool:
        return self.share <= HARMLESS

    @property
    def sentence(self) -> str:
        unit = "nats a token" if self.per_token else "nats"
        scale = "the margin" if self.has_margin else "the scale 1/β"
        return (
            f"noise of {self.precision}: the log-ratio of a response of {self.tokens:.0f} tokens is known to "
            f"±{self.nats:.2g} {unit} (one standard deviation), its reward to ±{self.nats * self.beta:.2g} at "
            f"β = {self.beta:g}, {self.share:.2%} of {scale} of {self.reach:g} {unit}"
        )

    def require_harmless(self) -> None:
        """Raises ConfigError where the noise could decide which responses are active."""
        if not self.is_harmless:
            remedy = "engine.dtype float32" if self.precision == "mixed" else "engine.dtype mixed, or float32"
            raise ConfigError(
                f"engine.dtype = {self.precision} is too coarse for this objective on this model: {self.sentence}; "
                f"above {HARMLESS:.0%} noise would decide which responses learn",
                remedy=f"Use {remedy}.",
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share, "sentence": self.sentence}


def settle(setup: RunSetup, *, reporter: Reporter) -> None:
    """Makes the choice that `engine.dtype auto` leaves open and keeps it. Wants tokenised pairs."""
    folder = setup.folder
    if setup.config.engine.dtype != "auto" or setup.objective.on_scores:
        return
    inputs = digest(
        [
            setup.objective.name,
            setup.objective.parameters(),
            setup.model_identity.weights,
            store.file_digest(folder.data / "train.jsonl"),
        ]
    )
    if folder.precision.is_file() and (folder.has_trained or store.read_json(folder.precision)["inputs"] == inputs):
        return
    setup.use_threads()
    pairs = folder.train_pairs()
    meanings: list[NoiseMeaning] = []
    for candidate in models.candidates(setup.device, parameters=setup.memory_shape.parameters):
        model = load_unaligned(setup, precision=candidate).model
        scorer = checked_scorer(model, setup, pairs=pairs, precision=candidate)
        meanings.append(NoiseMeaning.of(candidate, scorer.noise, setup.objective, pairs))
        reporter.say(f"auto: {meanings[-1].sentence}")
        if meanings[-1].is_harmless:
            break
    precision = next((meaning.precision for meaning in meanings if meaning.is_harmless), "float32")
    if meanings:
        reporter.say(f"auto: engine.dtype is {precision}")
    store.write_json(
        folder.precision,
        {"precision": precision, "inputs": inputs, "measured": [meaning.to_json() for meaning in meanings]},
    )


def harmless_noise(setup: RunSetup, scorer: Scorer, pairs: Sequence[TokenPair]) -> NoiseMeaning | None:
    """What the noise means for this run; None for a reward model, which reads no log-ratios.

    Raises ConfigError where it could decide which responses are active.
    """
    if setup.objective.on_scores:
        return None
    noise = NoiseMeaning.of(setup.precision, scorer.noise, setup.objective, pairs)
    noise.require_harmless()
    return noise
