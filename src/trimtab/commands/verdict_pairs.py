"""Pairs from verdicts that were given: a person's on the arena's page, or any judge's in AlpacaEval's form.

The preferred answer becomes the chosen one. A tie, a prompt without a verdict and equal answers make no pair, and
neither does a verdict on a conversation, whose file holds its turns run together.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands import audit
from trimtab.commands.pairs import require_own
from trimtab.errors import ConfigError, DataError
from trimtab.judging.files import read_objects
from trimtab.judging.verdicts import annotations_from_rows
from trimtab.records import Verdict

_COLUMNS = {"instruction", "output_1", "output_2", "preference"}
_HEAD = 1_000_000  # bytes that are looked at


@dataclass(frozen=True, slots=True)
class VerdictPairs:
    """The file of pairs, who judged, and why other verdicts made none."""

    path: Path
    judges: tuple[str, ...]
    n_verdicts: int
    n_pairs: int
    left_out: Counter[str]
    audit: audit.SourceAudit

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "judges": list(self.judges),
            "verdicts": self.n_verdicts,
            "pairs": self.n_pairs,
            "left_out": dict(self.left_out.most_common()),
            "audit": self.audit.to_json(),
        }

    def lines(self) -> list[str]:
        """The account for a terminal, and what the audit says."""
        head = f"{self.n_pairs:,} pairs of {self.n_verdicts:,} verdicts by {', '.join(self.judges)}"
        reasons = [f"  {n:,} without a pair: {reason}" for reason, n in self.left_out.most_common()]
        return [head, *reasons, *audit.lines(self.audit)]


def holds_verdicts(path: Path) -> bool:
    """Whether a file's first row is a verdict on two answers."""
    if not path.is_file() or Path(path.name.removesuffix(".gz")).suffix not in (".json", ".jsonl"):
        return False
    with path.open("rb") as file:
        text = file.read(_HEAD).decode("utf-8", "replace").lstrip().removeprefix("[").lstrip()
    try:
        row, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and set(row) >= _COLUMNS


def main(source: Path, flags: Mapping[str, Any], *, out: str | None, min_gap: float = 0.0) -> VerdictPairs:
    """Write the pairs of a file of verdicts to `out` and audit them; on tokens, too, where `flags` name a model.

    min_gap: the least distance of a preference from a tie, in [0, 1], where a judge gave probabilities.
    """
    if idle := [name for name in flags if name not in ("data", "model", "offline", "out")]:
        raise ConfigError(f"{idle[0]} has no effect here: {source} holds verdicts", remedy="leave it out")
    path = Path(out or f"{source.name.removesuffix('.gz').rpartition('.')[0]}.pairs.jsonl")
    require_own(path, sources=(str(source),))
    left_out, rows = Counter[str](), []
    objects = read_objects(source)
    single = [(place, row) for place, row in objects if row.get("turns", 1) == 1]
    left_out["a conversation of several turns"] = len(objects) - len(single)
    verdicts = annotations_from_rows(single).verdicts
    for verdict in verdicts:
        reason = _no_pair(verdict, min_gap)
        if reason:
            left_out[reason] += 1
        else:
            rows.append(_row(verdict))
    if not rows:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in (+left_out).most_common())
        raise DataError(f"{source}: no verdict makes a pair ({reasons})", remedy="judge more prompts")
    store.write_jsonl(path, rows)
    result = VerdictPairs(
        path=path,
        judges=tuple(sorted({verdict.annotator or "nobody named" for verdict in verdicts})),
        n_verdicts=len(verdicts) + left_out["a conversation of several turns"],
        n_pairs=len(rows),
        left_out=+left_out,
        audit=audit.main(str(path), {name: flags[name] for name in ("data", "model", "offline") if name in flags}),
    )
    store.write_json(path.with_name(path.name + ".summary.json"), result.to_json())
    return result


def _no_pair(verdict: Verdict, min_gap: float) -> str:
    if verdict.preference is None or not 1 <= verdict.preference <= 2:
        return "no verdict"
    if verdict.output_1 == verdict.output_2:
        return "the answers are the same"
    gap = abs(2 * verdict.preference - 3)
    return "a tie" if gap == 0 or gap < min_gap else ""


def _row(verdict: Verdict) -> dict[str, Any]:
    outputs = (verdict.output_1, verdict.output_2)
    assert verdict.preference is not None
    chosen, rejected = outputs if verdict.preference < 1.5 else reversed(outputs)
    return {
        "prompt": [{"role": "user", "content": verdict.instruction}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "prompt_id": verdict.prompt_id,
        "judge": verdict.annotator,
    }
