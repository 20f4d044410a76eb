"""Which learning rate SmolLM2-135M-Instruct wants, LoRA and full: make the runs that are missing, one JSON each.

    python -m experiments.real.rates --model SMOLLM2_FOLDER --shared DIR --work WORK [--minutes N]

DPO, one epoch over 128 pairs in batches of 8, the other settings at their defaults; pairs and measures as in
`experiments.real.runs`, whose tuning runs have three of the rates on one set already. What matters is the sum of the
rates over the steps: by it a rate found on 16 steps says what a longer run wants.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from experiments.real import runs
from experiments.real.measures import course, held_out
from experiments.real.queue import Job, work_off
from experiments.real.runs import SETS, TUNING_SET, Run, Size
from experiments.revision import revision
from trimtab import store

RESULTS = Path(__file__).with_name("rates")
LORA, FULL = "lora", "none"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run; `adapter` as the key `adapter.kind` has it."""

    source: str
    adapter: str
    rate: float

    @property
    def name(self) -> str:
        return f"{self.source}-{self.adapter}-{self.rate:g}"


def trials() -> list[Trial]:
    """The order to make them in; 3e-4 and more on the tuning set are runs of `experiments.real.runs`."""
    others = [source for source in SETS if source != TUNING_SET]
    return [
        *(Trial(TUNING_SET, LORA, rate) for rate in (1e-5, 1e-4)),
        *(Trial(TUNING_SET, FULL, rate) for rate in (1e-6, 1e-5, 1e-4)),
        *(Trial(source, LORA, rate) for rate in (1e-3, 3e-4, 1e-4) for source in others),
        *(Trial(source, FULL, rate) for rate in (1e-5, 1e-4) for source in others),
        *(Trial(source, LORA, rate) for rate in (3e-3, 1e-5) for source in others),
    ]


def read_results(folder: Path = RESULTS) -> dict[Trial, dict[str, Any]]:
    """The trials that have ended, those among the paper's tuning runs too."""
    own = [store.read_json(path) for path in sorted(folder.glob("*.json"))]
    results = runs.read_results()
    tuning = [run for run in runs.tuning_runs() if run.method == "dpo" and run in results]
    return {Trial(**tree["trial"]): tree for tree in own} | {
        Trial(run.source, LORA, run.rate): results[run] for run in tuning
    }


def missing_trials(results: Mapping[Trial, Mapping[str, Any]]) -> Iterator[Trial]:
    return (trial for trial in trials() if trial not in results)


def make(trial: Trial, *, model: Path, shared: Path, work: Path) -> dict[str, Any]:
    """Train and measure. Raises SystemExit with the output of a command that failed."""
    words = {"adapter.kind": trial.adapter, "train.learning-rate": str(trial.rate)}
    numbers = trained(trial.name, trial.source, words, model=model, shared=shared, work=work)
    return {"trial": asdict(trial), **numbers}


def trained(
    name: str, source: str, settings: Mapping[str, str], *, model: Path, shared: Path, work: Path
) -> dict[str, Any]:
    """The numbers of a run of DPO with these settings, by key, on the first seed's pairs of a set."""
    began, start = datetime.now(UTC), time.monotonic()
    size = Size(batch=int(settings.get("train.batch-pairs", Size().batch)))
    as_run = Run(source, "dpo", 0.0, 0)
    data = runs.prepare_data(as_run, size, model=model, shared=shared, folder=runs.data_folder(as_run, size, work))
    out = work / name
    chosen = {"train.batch-pairs": str(size.batch), **settings}
    runs.trimtab(
        "run", "--model", str(model), "--data", str(data / "train.jsonl"), "--data.holdout", "0",
        "--objective", "dpo", *(word for key, value in chosen.items() for word in (f"--{key}", value)),
        "--engine.dtype", "float32", "--benchmark", "none", "--judge", "none", "--out", str(out),
    )  # fmt: skip
    numbers = held_out(out, model=model, data=data, before=store.read_json(data / runs.BEFORE)) | course(out)
    numbers["seconds"]["all"] = round(time.monotonic() - start, 1)
    about = {"date": began.date().isoformat(), "revision": revision(), **runs.hardware(out), "size": asdict(size)}
    return {"about": about, **runs.provenance(out), **numbers}


def main() -> int:
    arguments = runs.parser(__doc__).parse_args()

    def missing() -> Iterator[Job]:
        for trial in missing_trials(read_results()):
            yield (
                trial.name,
                partial(make, trial, model=arguments.model, shared=arguments.shared, work=arguments.work),
            )

    work_off(missing, results=RESULTS, work=arguments.work, minutes=arguments.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
