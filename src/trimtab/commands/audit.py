"""What is wrong with a set of preference pairs, and whether a run would start on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab import windtunnel
from trimtab.config import Config, DataSection, resolve
from trimtab.config.flags import setting
from trimtab.data import audit as auditing
from trimtab.data.audit_result import Audit
from trimtab.data.chat import ChatTemplate
from trimtab.data.heldout import Split, SplitCounts
from trimtab.data.problems import RowProblem
from trimtab.data.refusals import refuse_bad_evaluation, refuse_if_bad, refuse_one_kind, refuse_without_training
from trimtab.errors import DataError, RunError
from trimtab.records import Pair, TokenPair, Unpaired
from trimtab.runtime import set_up
from trimtab.runtime.pair_source import Outcome, evaluation_rows, mixture, pair_source, refuse_idle
from trimtab.stages import prepare

Tokenize = Callable[[Pair | Unpaired], TokenPair | RowProblem]


@dataclass(frozen=True, slots=True)
class SourceAudit:
    """The audit of one source. `template` says how rows were tokenised; None where no model was named.

    `split`: the sides of the kept rows. `refusal` is why a run would not start on these rows; None where it would.
    `evaluation`: the audit of the rows of `data.eval`; None without it.
    """

    source: str
    format: str
    audit: Audit
    split: SplitCounts
    refusal: DataError | None
    template: str | None = None
    evaluation: Audit | None = None

    def lines(self) -> list[str]:
        """What was counted, a sentence a line."""
        template = [] if self.template is None else [self.template]
        return [*self.audit.lines(), *template, *self._evaluation_lines(), *self.split.lines()]

    def _evaluation_lines(self) -> list[str]:
        if self.evaluation is None:
            return []
        counts, *reasons = self.evaluation.account
        return [f"{self.split.evaluation} (data.eval): {counts}", *reasons]

    def to_json(self) -> dict[str, Any]:
        head = {"source": self.source, "format": self.format}
        if self.template is not None:
            head["template"] = self.template
        dropped_rows = self.audit.dropped_rows + (() if self.evaluation is None else self.evaluation.dropped_rows)
        rejected = [row.to_json() for row in dropped_rows]
        verdict = {"starts": self.refusal is None, "reason": None if self.refusal is None else self.refusal.message}
        return (
            head
            | self.audit.to_json()
            | self.split.to_json()
            | ({} if self.evaluation is None else {"evaluation_set": self.evaluation.to_json()})
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
    config = resolve(_tree(source, flags))
    data, offline = config.data, config.offline
    pairs = pair_source(mixture(data, offline=offline, rule="all"), data)
    refuse_idle(data, pairs)
    split = Split(data.holdout, evaluation=data.eval_label)
    template, tokenize = _template(config) if "model" in flags else (None, None)
    evaluation = _evaluation_set(data, split, tokenize, offline=offline)

    def outcomes() -> Iterator[Outcome]:
        for outcome in split.watch(pairs.outcomes()):
            if not isinstance(outcome, RowProblem):
                split.add(outcome)
            yield outcome

    audit = auditing.audit(
        outcomes(),
        tokenize=tokenize,
        decode=None if template is None else template.decode,
        notes=lambda: [*pairs.notes(), *(() if template is None else template.loss.sentences)],
        n_read=pairs.n_read,
    )
    counts = split.counts(audit.dropped_ids, sources=pairs.names)
    return SourceAudit(
        source,
        pairs.format,
        audit,
        counts,
        _refusal(audit, evaluation, data, counts, imitates="demonstrations" in pairs.format),
        template=None if template is None else template.sentence,
        evaluation=evaluation,
    )


def _tree(source: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run on `source`, by whose rules the keys are checked.

    Where no model is named the embedded one stands for it, and nothing of it is read.
    """
    data = {**flags.get("data", {}), **setting("data.source", source)["data"]}
    return {"model": windtunnel.NAME, **flags, "data": data}


def _template(config: Config) -> tuple[ChatTemplate, Tokenize]:
    """The model's template, and how a run tokenises a pair with it."""
    template, limits = prepare.template_of(set_up(config))
    return template, lambda pair: template.tokenize_pair(pair, **limits)


def _evaluation_set(data: DataSection, split: Split, tokenize: Tokenize | None, *, offline: bool) -> Audit | None:
    """The audit of the pairs of `data.eval`, of which the sound ones are held out; None without it."""
    rows = evaluation_rows(data, offline=offline)
    if rows is None:
        return None
    source = pair_source([rows], data)
    outcomes = list(source.outcomes())
    audit = auditing.audit(outcomes, tokenize=tokenize, notes=source.notes, n_read=source.n_read)
    for outcome in outcomes:
        if not isinstance(outcome, RowProblem) and outcome.id not in audit.dropped_ids:
            split.hold(outcome)
    return audit


def _refusal(
    audit: Audit, evaluation: Audit | None, data: DataSection, counts: SplitCounts, *, imitates: bool
) -> DataError | None:
    """What the stage `prepare` would stop with."""
    try:
        if evaluation is not None:
            refuse_bad_evaluation(evaluation, data)
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
