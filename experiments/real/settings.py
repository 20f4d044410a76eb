"""What other settings do to a run of SmolLM2-135M-Instruct: β, batch, schedule, epochs, one at a time, one JSON a run.

    python -m experiments.real.settings --model SMOLLM2_FOLDER --shared DIR --work WORK [--minutes N]

Each run differs from a run of `experiments.real.rates`, LoRA at `RATE`, in one setting alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.real import rates, runs
from experiments.real.queue import Job, work_off
from experiments.real.rates import LORA, Trial
from experiments.real.runs import SETS
from trimtab import store

RESULTS = Path(__file__).with_name("settings")
RATE = 3e-4
CHANGES = (
    ("objective.beta", "0.03"),
    ("objective.beta", "0.3"),
    ("train.epochs", "2"),
    ("train.batch-pairs", "4"),
    ("train.batch-pairs", "16"),
    ("train.schedule", "constant"),
    ("train.schedule", "cosine"),
)
"""Keys with values that are not those of `base` (0.1, 1, 8 and linear)."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One training run and the one setting in which it differs from `base`."""

    source: str
    key: str
    value: str

    @property
    def name(self) -> str:
        return f"{self.source}-{self.key.rpartition('.')[2]}-{self.value}"

    @property
    def base(self) -> Trial:
        return Trial(self.source, LORA, RATE)


def variants() -> list[Variant]:
    """The order to make them in."""
    return [Variant(source, key, value) for source in SETS for key, value in CHANGES]


def read_results(folder: Path = RESULTS) -> dict[Variant, dict[str, Any]]:
    """The runs that have ended."""
    trees = [store.read_json(path) for path in sorted(folder.glob("*.json"))]
    return {Variant(**tree["variant"]): tree for tree in trees}


def missing_variants(results: Mapping[Variant, Mapping[str, Any]]) -> Iterator[Variant]:
    return (variant for variant in variants() if variant not in results)


def make(variant: Variant, *, model: Path, shared: Path, work: Path) -> dict[str, Any]:
    """Train and measure. Raises SystemExit with the output of a command that failed."""
    settings = {"adapter.kind": LORA, "train.learning-rate": str(RATE), variant.key: variant.value}
    numbers = rates.trained(variant.name, variant.source, settings, model=model, shared=shared, work=work)
    return {"variant": asdict(variant), **numbers}


def main() -> int:
    arguments = runs.parser(__doc__).parse_args()

    def missing() -> Iterator[Job]:
        for variant in missing_variants(read_results()):
            yield (
                variant.name,
                partial(make, variant, model=arguments.model, shared=arguments.shared, work=arguments.work),
            )

    work_off(missing, results=RESULTS, work=arguments.work, minutes=arguments.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
