"""What is wrong with a set of preference pairs, and whether a run would start on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab import windtunnel
from trimtab.config import Config, DataSection, ModelSection, section
from trimtab.data import audit as auditing
from trimtab.data.formats import detect_format
from trimtab.data.problems import RowProblem
from trimtab.data.sources import read_rows
from trimtab.errors import DataError, RunError
from trimtab.records import Pair, TokenPair
from trimtab.runtime import set_up
from trimtab.stages import prepare

ENOUGH_PAIRS = 10_000  # training pairs remembered, to know that one of them is left; more are not needed for that


@dataclass(frozen=True, slots=True)
class SourceAudit:
    """The audit of one source. `template` says how rows were tokenised; None where no model was named.

    `refusal` is why a run would not start on these rows; None where it would.
    """

    source: str
    format: str
    audit: auditing.Audit
    refusal: DataError | None
    template: str | None = None

    def lines(self) -> list[str]:
        """What was counted, a sentence a line."""
        return [*self.audit.lines(), *([] if self.template is None else [self.template])]

    def to_json(self) -> dict[str, Any]:
        head = {"source": self.source, "format": self.format}
        if self.template is not None:
            head["template"] = self.template
        rejected = [row.to_json() for row in self.audit.dropped_rows]
        verdict = {"starts": self.refusal is None, "reason": None if self.refusal is None else self.refusal.message}
        return head | self.audit.to_json() | {"rejected": rejected, "lines": self.lines(), "verdict": verdict}

    def require_start(self) -> None:
        """Raises RunError where a run would refuse these rows."""
        if self.refusal is not None:
            reason = self.refusal.message.partition("\n")[0]  # the rest stands above
            raise RunError(f"a run would refuse these data: {reason}", remedy=self.refusal.remedy)


def main(source: str, flags: Mapping[str, Any]) -> SourceAudit:
    """The audit of `source`; on tokens too when `flags`, of data, model and offline, name a model."""
    if source == windtunnel.NAME:
        raise DataError(
            "the pairs of the wind tunnel are sampled when a run begins: there is nothing to read yet",
            remedy="`trimtab prepare --out FOLDER` samples and audits them: FOLDER/data/audit.json",
        )
    data = section(DataSection, "data", {**flags.get("data", {}), "source": source})
    assert isinstance(data, DataSection)
    offline = str(flags.get("offline", "false")).lower() == "true"
    rows = read_rows(source, split=prepare.split_name(data), limit=data.limit, offline=offline)
    shape = detect_format(rows.head, source=source, columns=data.columns)
    train_ids: set[str] = set()

    def outcomes() -> Iterator[Pair | RowProblem]:
        for row_id, row in rows:
            outcome = shape.to_pair(row_id, row)
            enough = len(train_ids) >= ENOUGH_PAIRS
            if isinstance(outcome, Pair) and not enough and not prepare.is_heldout(outcome, share=data.holdout):
                train_ids.add(outcome.id)
            yield outcome

    if "model" not in flags:
        audit = auditing.audit(outcomes(), notes=lambda: shape.notes)
        return SourceAudit(source, shape.name, audit, _refusal(audit, data, train_ids))
    model = section(ModelSection, "model", flags["model"])
    assert isinstance(model, ModelSection)
    template, limits = prepare.template_of(set_up(Config(model=model, data=data, offline=offline)))

    def tokenize(pair: Pair) -> TokenPair | RowProblem:
        return template.tokenize_pair(pair, **limits)

    audit = auditing.audit(
        outcomes(), tokenize=tokenize, decode=template.decode, notes=lambda: [*shape.notes, *template.loss.sentences]
    )
    return SourceAudit(source, shape.name, audit, _refusal(audit, data, train_ids), template=template.sentence)


def _refusal(audit: auditing.Audit, data: DataSection, train_ids: set[str]) -> DataError | None:
    """What the stage `prepare` would stop with."""
    try:
        prepare.refuse_if_bad(audit, max_rejected=data.max_rejected)
        prepare.refuse_without_training(len(train_ids - audit.dropped_ids), audit.n_kept)
    except DataError as error:
        return error
    return None


def lines(result: SourceAudit) -> list[str]:
    """The audit for a terminal, with the first kept row as the model will see it, and the verdict last."""
    text = [f"{result.source} ({result.format})", *result.lines()]
    if (sample := result.audit.sample) is not None:
        text += [
            f"first kept row ({sample.id}) as the model sees it:",
            f"  prompt   {sample.prompt!r}",
            f"  chosen   {sample.chosen!r}",
            f"  rejected {sample.rejected!r}",
        ]
    return [*text, "a run would start on these data"] if result.refusal is None else text
