"""What is wrong with a set of preference pairs, before an hour is spent on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.config import Config, DataSection, ModelSection, section
from trimtab.data import audit as auditing
from trimtab.data.formats import detect_format
from trimtab.data.problems import RowProblem
from trimtab.data.sources import read_rows
from trimtab.errors import ConfigError
from trimtab.records import Pair, TokenPair
from trimtab.runtime import set_up
from trimtab.stages.prepare import split_name, template_of


@dataclass(frozen=True, slots=True)
class SourceAudit:
    """The audit of one source. `template` says how rows were tokenised; None where no model was named."""

    source: str
    format: str
    audit: auditing.Audit
    template: str | None = None

    def lines(self) -> list[str]:
        """What was counted, a sentence a line."""
        return [*self.audit.lines(), *([] if self.template is None else [self.template])]

    def to_json(self) -> dict[str, Any]:
        head = {"source": self.source, "format": self.format}
        if self.template is not None:
            head["template"] = self.template
        rejected = [row.to_json() for row in self.audit.dropped]
        return head | self.audit.to_json() | {"rejected": rejected, "lines": self.lines()}


def main(source: str, flags: Mapping[str, Any]) -> SourceAudit:
    """The audit of `source`; on tokens too when `flags` name a model."""
    if foreign := sorted(set(flags) - {"data", "model", "offline"}):
        raise ConfigError(f"an audit has no use for {foreign[0]}", remedy="give --model and --data.KEY only")
    data = section(DataSection, "data", {**flags.get("data", {}), "source": source})
    assert isinstance(data, DataSection)
    offline = str(flags.get("offline", "false")).lower() == "true"
    rows = read_rows(source, split=split_name(data), limit=data.limit, offline=offline)
    shape = detect_format(rows.head, source=source, columns=data.columns)
    outcomes = (shape.to_pair(row_id, row) for row_id, row in rows)
    if "model" not in flags:
        return SourceAudit(source, shape.name, auditing.audit(outcomes))
    model = section(ModelSection, "model", flags["model"])
    assert isinstance(model, ModelSection)
    template, limits = template_of(set_up(Config(model=model, data=data, offline=offline)))

    def tokenize(pair: Pair) -> TokenPair | RowProblem:
        return template.tokenize_pair(pair, **limits)

    audit = auditing.audit(outcomes, tokenize=tokenize, decode=template.decode)
    return SourceAudit(source, shape.name, audit, template=template.sentence)


def lines(result: SourceAudit) -> list[str]:
    """The audit for a terminal, with the first kept row as the model will see it."""
    text = [f"{result.source} ({result.format})", *result.lines()]
    if (sample := result.audit.sample) is not None:
        text += [
            f"first kept row ({sample.id}) as the model sees it:",
            f"  prompt   {sample.prompt!r}",
            f"  chosen   {sample.chosen!r}",
            f"  rejected {sample.rejected!r}",
        ]
    return text
