"""A mixture's sources are audited apart: a length bias in one is not hidden by the other."""

from __future__ import annotations

import pytest

from trimtab.data.audit import audit
from trimtab.records import Message, Pair


def pair(name: str, number: int, chosen: str, rejected: str) -> Pair:
    return Pair(f"{name}:{number}", (Message("user", f"{name} {number}?"),), chosen, rejected)


def test_each_source_has_its_own_length_bias() -> None:
    rows = [pair("long.jsonl", n, "yes" * (n + 2), "no") for n in range(4)]
    rows += [pair("short.jsonl", n, "no", "yes" * (n + 2)) for n in range(4)]
    result = audit(rows)
    assert result.bias["characters"].chosen_longer == pytest.approx(0.5)  # together nothing is to be seen
    by_source = result.to_json()["length_bias_by_source"]
    assert {source: bias["chosen_longer"] for source, bias in by_source.items()} == {
        "long.jsonl": 1.0,
        "short.jsonl": 0.0,
    }
    assert {source: bias["auc"] for source, bias in by_source.items()} == {"long.jsonl": 1.0, "short.jsonl": 0.0}
    assert "length bias in characters, long.jsonl: chosen longer in 100.0% of pairs" in "\n".join(result.lines())


def test_one_source_is_not_told_twice() -> None:
    assert audit([pair("a.jsonl", n, "yes", "no") for n in range(3)]).to_json()["length_bias_by_source"] == {}
