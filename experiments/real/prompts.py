"""The instructions that real runs answer: the short ones of AlpacaEval, in its order."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from trimtab import store

N, LONGEST = 64, 96  # prompts; tokens of one


def prompts(shared: Path, tokenizer: Any, n: int = N) -> list[str]:
    questions = store.read_json(shared / "eval" / "alpaca_eval" / "instructions_805.json")
    texts = (row["instruction"] for row in questions)
    return list(islice((text for text in texts if len(tokenizer.encode(text)) <= LONGEST), n))
