"""The findings are a package beside `src`: the checkout's root is where it is found. And sweeps made by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))


@dataclass(frozen=True)
class Run:
    """One seed by hand: a length and a preference (1 to 2) a prompt, log-ratios a pair."""

    tokens: Sequence[int]
    preferences: Sequence[float]
    log_ratios: Sequence[tuple[float, float]] = ((1.0, -1.0), (2.0, -2.0))
    regime: str = "selective"
    texts: Sequence[str] = ()
    rates: Mapping[str, float] = field(default_factory=dict)  # by judge, and "controlled"


@pytest.fixture
def made_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Writes the files of a whole sweep that the questions read; returns the folder that holds the sweep."""

    def make(name: str, points: Sequence[tuple[Mapping[str, Any], Sequence[Run]]]) -> Path:
        runs = tmp_path / "runs"
        entries = []
        for place, (settings, seeds) in enumerate(points):
            for seed, run in enumerate(seeds):
                _write(runs / name / "points" / f"p{place}" / f"seed-{seed}", settings, run)
            states = [{"seed": seed, "state": "done"} for seed in range(len(seeds))]
            entries.append({"name": f"p{place}", "values": dict(settings), "runs": states})
        tree = {
            "command": f"trimtab sweep {name}.toml",
            "points": entries,
            "states": {"done": 1},
            "cost": {"seconds": 60},
        }
        _json(runs / name / "sweep.json", tree)
        return runs

    return make


def _write(folder: Path, settings: Mapping[str, Any], run: Run) -> None:
    config: dict[str, Any] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        config.setdefault(section, {})[name] = value
    prompts = [f"p-{i}" for i in range(len(run.tokens))]
    texts = run.texts or [f"answer of {n}" for n in run.tokens]
    answers = [
        {"prompt_id": prompt, "n_tokens": n, "output": text}
        for prompt, n, text in zip(prompts, run.tokens, texts, strict=True)
    ]
    _json(folder / "config.json", config)
    _json(folder / "answers" / "windtunnel.json", answers)
    _json(folder / "answers" / "windtunnel.baseline.json", [row | {"n_tokens": 10} for row in answers])
    for judge in ("oracle", "biased", "unbiased"):
        _json(folder / "verdicts" / f"windtunnel.{judge}.json", [{"preference": p} for p in run.preferences])
    visits = {
        "step": 1, "pairs": list(range(len(run.log_ratios))),
        "chosen": [chosen for chosen, _ in run.log_ratios], "rejected": [rejected for _, rejected in run.log_ratios],
    }  # fmt: skip
    (folder / "visits.jsonl").write_text(json.dumps(visits) + "\n")
    row = {"rewards/accuracies": 0.9, "active/chosen": 1.0, "active/rejected": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    true = 100 * (sum(run.preferences) / len(run.preferences) - 1)
    rates = {"oracle": true, "biased": true, "unbiased": true, "controlled": true} | dict(run.rates)
    judges = [
        {
            "judge": judge,
            "win_rate": {"value": rates[judge]},
            "length_controlled": {"win_rate": {"value": rates["controlled"]}} if judge == "biased" else None,
        }
        for judge in ("oracle", "biased", "unbiased")
    ]
    report = {"benchmark": {"judges": judges}, "training": {"seeds": [{"regime": {"name": run.regime}}]}}
    _json(folder / "report.json", report)
    hardware = {"system": "a system", "processor": "a processor", "cores": 2}
    versions = {"python": "3", "packages": {"torch": "2", "transformers": "5"}, "hardware": hardware}
    _json(folder / "versions.json", versions)


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
