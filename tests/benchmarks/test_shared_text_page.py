"""The page of shared text: medians of the turns, and what one build's is of the other's."""

from __future__ import annotations

import shared_text

ABOUT = {
    "date": "2026-11-29", "commit": "abc", "minutes": 1.0, "machine": "a machine", "versions": {"ours": {"torch": "2"}},
    "command": "python benchmarks/shared_text.py", "earlier": "def", "model": "a model", "adapter": "lora",
}  # fmt: skip


def test_medians_and_their_ratio_worked_by_hand() -> None:
    rows = [
        {"case": case, "side": side, "pairs": pairs, "seconds": seconds, "tokens": tokens}
        for case, pairs in (("ranked", 6), ("real", 16))
        for side, times, tokens in (("earlier", (12.0, 9.0, 99.0), 2400), ("this", (3.0, 4.0, 2.0), 1200))
        for seconds in times
    ]
    text = shared_text.page(ABOUT, rows)
    assert "| four completions, six pairs a prompt | 400 / 200 | 2.00 / 0.50 | 4.00 |" in text
    assert "| ukp-convarg1-strict, 16 pairs a batch | 150 / 75 | 0.75 / 0.19 | 4.00 |" in text
    assert "Against commit def, a model, fp32, LoRA rank 16" in text
