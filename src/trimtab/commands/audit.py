"""What is wrong with a set of preference pairs, and whether a run would start on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab import windtunnel
from trimtab.config import Config, DataSection, ModelSection, section
from trimtab.config.flags import setting
from trimtab.data import audit as auditing
from trimtab.data.audit_result import Audit
from trimtab.data.heldout import Split, SplitCounts
from trimtab.data.problems import RowProblem
from trimtab.data.refusals import refuse_if_bad, refuse_one_kind, refuse_without_training
from trimtab.errors import DataError, RunError
from trimtab.records import Pair, TokenPair, Unpaired
from trimtab.runtime import set_up
from trimtab.runtime.pair_source import Outcome, PairSource, evaluation_rows, mixture, pair_source, refuse_idle
from trimtab.stages import prepare


@dataclass(frozen=True, slots=True)
class SourceAudit:
    """The audit of one source. `template` says how rows were tokenised; None where no model was named.

    `split`: the sides of the kept rows. `refusal` is why a run would not start on these rows; None where it would.
    """

    source: str
    format: str
    audit: Audit
    split: SplitCounts
    refusal: DataError | None
    template: str | None = None

    def lines(self) -> list[str]:
        """What was counted, a sentence a line."""
        return [*self.audit.lines(), *([] if self.template is None else [self.template]), *self.split.lines()]

    def to_json(self) -> dict[str, Any]:
        head = {"source": self.source, "format": self.format}
        if self.template is not None:
            head["template"] = self.template
        rejected = [row.to_json() for row in self.audit.dropped_rows]
        verdict = {"starts": self.refusal is None, "reason": None if self.refusal is None else self.refusal.message}
        return (
            head
            | self.audit.to_json()
            | self.split.to_json()
            | {"rejected": rejected, "lines": self.lines(), "verdict": verdict}
        )

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
    sources = setting("data.source", source)["data"]["source"]
    data = section(DataSection, "data", {**flags.get("data", {}), "source": sources})
    assert isinstance(data, DataSection)
    offline = str(flags.get("offline", "false")).lower() == "true"
    pairs = pair_source(mixture(data, offline=offline), data)
    refuse_idle(data, pairs)
    split = Split(data.holdout, evaluation=data.eval)
    if (held := evaluation_rows(data, offline=offline)) is not None:
        for outcome in pair_source([held], data).outcomes():
            if not isinstance(outcome, RowProblem):
                split.hold(outcome)

    def outcomes() -> Iterator[Outcome]:
        for outcome in pairs.outcomes():
            if not isinstance(outcome, RowProblem):
                split.side(outcome)
            yield outcome

    if "model" not in flags:
        audit = auditing.audit(outcomes(), notes=pairs.notes, n_read=pairs.n_read)
        return _result(source, pairs, audit, data, split)
    model = section(ModelSection, "model", flags["model"])
    assert isinstance(model, ModelSection)
    template, limits = prepare.template_of(set_up(Config(model=model, data=data, offline=offline)))

    def tokenize(pair: Pair | Unpaired) -> TokenPair | RowProblem:
        return template.tokenize_pair(pair, **limits)

    audit = auditing.audit(
        outcomes(),
        tokenize=tokenize,
        decode=template.decode,
        notes=lambda: [*pairs.notes(), *template.loss.sentences],
        n_read=pairs.n_read,
    )
    return _result(source, pairs, audit, data, split, template=template.sentence)


def _result(
    source: str, pairs: PairSource, audit: Audit, data: DataSection, split: Split, template: str | None = None
) -> SourceAudit:
    counts = split.counts(audit.dropped_ids, sources=pairs.names)
    imitates = "demonstrations" in pairs.format
    refusal = _refusal(audit, data, counts, imitates=imitates)
    return SourceAudit(source, pairs.format, audit, counts, refusal, template=template)


def _refusal(audit: Audit, data: DataSection, counts: SplitCounts, *, imitates: bool) -> DataError | None:
    """What the stage `prepare` would stop with."""
    try:
        refuse_if_bad(audit, max_rejected=data.max_rejected)
        if not imitates:
            refuse_one_kind(audit, counts, label=data.label)
        refuse_without_training(counts)
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
            *(f"  {side:<8} {text!r}" for side, text in sample.responses.items()),
        ]
    return [*text, "a run would start on these data"] if result.refusal is None else text
