"""What tests of the Python interface train on."""

from __future__ import annotations

from typing import Any

KEYS: dict[str, Any] = {
    "train": {"epochs": 2, "max_steps": 4, "batch_pairs": 8, "learning_rate": 1e-3},
    "engine": {"threads": 1},
    "data": {"holdout": 0.2},
}


def rows(n: int = 24) -> list[dict[str, Any]]:
    return [
        {"prompt": f"What is {k} plus {k}?", "chosen": f"{k} plus {k} is {2 * k}.", "rejected": "Have a nice day."}
        for k in range(n)
    ]
