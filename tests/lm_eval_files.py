"""Folders as `lm-eval run --log_samples --output_path` fills them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

DATE = "2026-11-30T03-19-55.264940"


def write_samples(
    folder: Path,
    *,
    values: Mapping[str, Sequence[object]],
    date: str = DATE,
    chat: str | None = None,
    up: bool = True,
    task: str = "colours",
) -> Path:
    """In the form of lm-eval 0.4.13: `results_DATE.json`, and a row a document with the value of each metric. A group
    stands in the results and has no samples of its own."""
    place = folder / "owner__model"
    place.mkdir(parents=True, exist_ok=True)
    results = {"higher_is_better": {task: dict.fromkeys(values, up), "a_group": {"acc": True}}}
    (place / f"results_{date}.json").write_text(
        json.dumps(results | {"lm_eval_version": "0.4.13", "chat_template": chat})
    )
    rows = [
        {"doc_id": n, "doc_hash": f"{n:064x}", "filter": "none", "metrics": list(values)}
        | dict(zip(values, of_row, strict=True))
        for n, of_row in enumerate(zip(*values.values(), strict=True))
    ]
    rows.reverse()  # in whatever order
    (place / f"samples_{task}_{date}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
