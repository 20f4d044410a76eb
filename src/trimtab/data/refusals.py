"""Data that training must not begin with: mostly bad rows, one label only, no pair left to train on."""

from __future__ import annotations

import math

from trimtab.config import DataSection
from trimtab.data.audit_result import Audit
from trimtab.data.heldout import SplitCounts
from trimtab.errors import DataError


def refuse_if_bad(audit: Audit, *, max_rejected: float, words: str = "DATA") -> None:
    """Stop before training on a data set of which more than `data.max_rejected` is unusable.

    `words`: those after `trimtab audit` that have these rows listed.
    """
    reasons = f": {audit.reasons[0]}" if len(audit.reasons) == 1 else "".join(f"\n  {line}" for line in audit.reasons)
    if not audit.n_kept:
        raise DataError(
            f"none of the {audit.n_rows} {audit.noun} is a usable pair{reasons}",
            remedy=f"`trimtab audit {words} --model M --json` names every row",
        )
    if audit.dropped_share > max_rejected:
        raise DataError(
            f"{len(audit.dropped_rows)} of {audit.n_rows} {audit.noun} ({audit.dropped_share:.1%}) are bad, "
            f"more than data.max_rejected = {max_rejected:.0%}{reasons}",
            remedy=f"mend the rows (`trimtab audit {words} --model M --json` names them), or allow more with "
            f"--data.max-rejected {math.ceil(100 * audit.dropped_share) / 100:g}",
        )


def refuse_bad_evaluation(audit: Audit, data: DataSection) -> None:
    """The same of the held-out set, `data.eval`."""
    split = "" if data.eval_split is None else f" --data.eval_split {data.eval_split}"
    try:
        refuse_if_bad(audit, max_rejected=data.max_rejected, words=f"DATA --data.eval {data.eval}{split}")
    except DataError as error:
        raise DataError(f"data.eval: {error.message}", remedy=error.remedy) from None


def refuse_one_kind(audit: Audit, counts: SplitCounts, *, label: str) -> None:
    """Raises DataError where every unpaired row, or every one to train on, has the same label: there is nothing to tell
    apart."""
    labels, train_labels = audit.labels, counts.train_labels
    if labels is None:
        return
    kind = "good (label true)" if labels.good else "bad (label false)"
    first = "" if audit.sample is None else f" (first: {audit.sample.id})"
    if not (labels.good and labels.bad):
        raise DataError(
            f"{label}: all {labels.good + labels.bad:,} rows are {kind}{first}, so there is nothing to tell apart",
            remedy="bring rows of both labels",
        )
    if train_labels is not None and not (train_labels.good and train_labels.bad):
        kind, n_others = ("good", labels.bad) if train_labels.good else ("bad", labels.good)
        raise DataError(
            f"{label}: all {counts.train:,} rows to train on are {kind}: the {n_others:,} of the other label are held "
            "out",
            remedy="lower data.holdout, or bring more rows of that label",
        )


def refuse_without_training(counts: SplitCounts) -> None:
    """Raises DataError where no pair is left to train on."""
    if counts.train:
        return
    if counts.evaluation is not None:
        raise DataError(
            f"no pair is left to train on: all {counts.leaked} have a prompt of {counts.evaluation}",
            remedy="train on other prompts, or leave data.eval out",
        )
    raise DataError(
        f"no pair is left to train on: all {counts.heldout} are held out",
        remedy="lower data.holdout or bring more prompts",
    )
