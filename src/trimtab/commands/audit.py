"""What is wrong with a set of preference pairs, before an hour is spent on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.config import Config, DataSection, ModelSection, section
from trimtab.data.audit import Audit, audit
from trimtab.data.formats import detect_format
from trimtab.data.sources import read_rows
from trimtab.errors import ConfigError
from trimtab.records import Pair
from trimtab.runtime import set_up
from trimtab.stages.prepare import split_name, template_of


def main(source: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The audit of `source` as a JSON tree; on tokens too when `flags` name a model."""
    if foreign := sorted(set(flags) - {"data", "model", "offline"}):
        raise ConfigError(f"an audit has no use for {foreign[0]}", remedy="give --model and --data.KEY only")
    data = section(DataSection, "data", {**flags.get("data", {}), "source": source})
    assert isinstance(data, DataSection)
    offline = str(flags.get("offline", "false")).lower() == "true"
    rows = read_rows(source, split=split_name(data), limit=data.limit, offline=offline)
    shape = detect_format(rows.head, source=source, columns=data.columns)
    outcomes = (shape.to_pair(row_id, row) for row_id, row in rows)
    if "model" not in flags:
        found = audit(outcomes)
        return {"source": source, "format": shape.name} | _told(found)
    model = section(ModelSection, "model", flags["model"])
    assert isinstance(model, ModelSection)
    config = Config(model=model, data=data, offline=offline)
    template, limits = template_of(set_up(config))

    def tokenize(pair: Pair) -> Any:
        return template.tokenize_pair(pair, **limits)

    found = audit(outcomes, tokenize=tokenize, decode=template.decode)
    told = {"source": source, "format": shape.name, "template": template.sentence} | _told(found)
    return told | {"lines": [*told["lines"], template.sentence]}


def _told(found: Audit) -> dict[str, Any]:
    return found.to_json() | {"rejected": [row.to_json() for row in found.dropped], "lines": found.lines()}


def lines(told: dict[str, Any]) -> list[str]:
    """The audit for a terminal, with the first kept row as the model will see it."""
    shown = [f"{told['source']} ({told['format']})", *told["lines"]]
    if sample := told.get("sample"):
        shown += [
            f"first kept row ({sample['id']}) as the model sees it:",
            *(f"  {part:8} {sample[part]!r}" for part in ("prompt", "chosen", "rejected")),
        ]
    return shown
