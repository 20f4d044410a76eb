"""What an audit found, in numbers and in sentences. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trimtab.data.lengths import LengthBias, LengthSummary
from trimtab.data.problems import Reason, RowProblem


@dataclass(frozen=True, slots=True)
class Labels:
    """Unpaired rows by label."""

    good: int
    bad: int

    @property
    def sentence(self) -> str:
        """The imbalance, and the weight that would even it out."""
        counts = f"labels: {self.good:,} good, {self.bad:,} bad ({self.good / (self.good + self.bad):.1%} good)"
        if not min(self.good, self.bad) or self.good == self.bad:
            return counts
        key, weight = (
            ("undesirable_weight", self.good / self.bad)
            if self.good > self.bad
            else ("desirable_weight", self.bad / self.good)
        )
        return f"{counts}; objective.{key} {weight:.2f} would give both kinds the same weight in all"

    def to_json(self) -> dict[str, Any]:
        return {"good": self.good, "bad": self.bad}


@dataclass(frozen=True, slots=True)
class Sample:
    """The first kept row as the model will see it, special tokens spelled out.

    `mask_spans` are the half-open ranges, in the row of tokens `[prompt][chosen][rejected]`, that carry the loss. An
    unpaired row has one of the two responses; the other is empty.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    mask_spans: tuple[tuple[int, int], tuple[int, int]]

    @property
    def responses(self) -> dict[str, str]:
        """Those that it has, by side."""
        sides = {"chosen": self.chosen, "rejected": self.rejected}
        return {side: text for side, text in sides.items() if text}

    def to_json(self) -> dict[str, Any]:
        spans = [list(span) for span in self.mask_spans if span[1] > span[0]]
        return {"id": self.id, "prompt": self.prompt} | self.responses | {"mask_spans": spans}


@dataclass(frozen=True)
class Audit:
    """What an audit found. `n_rows` = `n_kept` + `len(dropped)`, always: pairs or single responses, and rows of the
    source that are none. `n_read`: rows of the source, which differ from these where a row makes several pairs, or
    several rows one.

    `lengths` and `bias` are by unit, `characters` and, when tokens were seen, `tokens`, over the kept rows; token
    lengths are those after cutting. `cut` are shares of kept responses that were cut. `overlap` names the kept rows
    with a user message that is an evaluation prompt (None when there was nothing to compare with). `template_marks` are
    kept rows whose text holds a mark of some chat template, with the mark: (row id, mark). `notes` are further
    sentences: what was left out where rows were read and tokenised. `labels` counts good and bad rows that were kept;
    None where they are pairs. `bias_by_source` is in characters, and empty where all pairs are of one source.
    """

    n_rows: int
    dropped_rows: tuple[RowProblem, ...]
    lengths: dict[str, dict[str, LengthSummary]]
    bias: dict[str, LengthBias]
    cut_shares: dict[str, float]
    overlap: tuple[str, ...] | None
    sample: Sample | None
    template_marks: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    labels: Labels | None = None
    bias_by_source: Mapping[str, LengthBias] = field(default_factory=dict)
    n_read: int | None = None

    @property
    def n_kept(self) -> int:
        return self.n_rows - len(self.dropped_rows)

    @property
    def noun(self) -> str:
        """What `n_rows` counts, in words."""
        if self.n_read in (None, self.n_rows):
            return "rows"
        return f"{'pairs' if self.labels is None else 'single responses'} and rows that make none"

    @property
    def dropped_share(self) -> float:
        return len(self.dropped_rows) / self.n_rows if self.n_rows else 0.0

    @cached_property
    def dropped_ids(self) -> frozenset[str]:
        return frozenset(row.id for row in self.dropped_rows)

    @cached_property
    def dropped_by_reason(self) -> dict[Reason, int]:
        """Counts of the reasons that occurred, most frequent first."""
        return dict(Counter(row.reason for row in self.dropped_rows).most_common())

    @property
    def reasons(self) -> list[str]:
        """A sentence for each reason that occurred, with the first row that was dropped for it."""
        lines = []
        for reason, count in self.dropped_by_reason.items():
            example = next(row for row in self.dropped_rows if row.reason is reason)
            lines.append(f"{count:,} {reason.value}: {reason.sentence} (first: {_example(example)})")
        return lines

    @property
    def remarks(self) -> list[str]:
        """What is to be known of the kept rows: marks of a template in their text, and the notes."""
        if not self.template_marks:
            return list(self.notes)
        (row, mark), n_rows = self.template_marks[0], len(self.template_marks)
        sentence = f"{n_rows:,} kept rows hold marks of another chat template (first: {row}, {mark!r}): "
        return [sentence + "their text seems to have been rendered once already", *self.notes]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows_read": self.n_rows if self.n_read is None else self.n_read,
            "rows": self.n_rows,
            "kept": self.n_kept,
            "dropped": len(self.dropped_rows),
            "dropped_share": self.dropped_share,
            "dropped_by_reason": {reason.value: count for reason, count in self.dropped_by_reason.items()},
            "lengths": {
                unit: {part: summary.to_json() for part, summary in parts.items()}
                for unit, parts in self.lengths.items()
            },
            "length_bias": {unit: bias.to_json() for unit, bias in self.bias.items()},
            "length_bias_by_source": {source: bias.to_json() for source, bias in self.bias_by_source.items()},
            "cut": dict(self.cut_shares),
            "overlap_with_evaluation": None
            if self.overlap is None
            else {"rows": len(self.overlap), "first_ids": list(self.overlap[:10])},
            "sample": None if self.sample is None else self.sample.to_json(),
            "template_marks": {
                "rows": len(self.template_marks),
                "first_ids": [row for row, _ in self.template_marks[:10]],
            },
            "notes": self.remarks,
        } | ({} if self.labels is None else {"labels": self.labels.to_json()})

    @property
    def account(self) -> list[str]:
        """How many rows were kept and dropped, and the reasons, a sentence a line."""
        read = "" if self.n_read in (None, self.n_rows) else f"{self.n_read:,} rows read; "
        counts = (
            f"{read}{self.n_rows:,} {self.noun}: {self.n_kept:,} kept, {len(self.dropped_rows):,} dropped "
            f"({self.dropped_share:.1%})"
        )
        return [counts, *(f"  {line}" for line in self.reasons)]

    def lines(self) -> list[str]:
        """The audit in plain sentences, one a line."""
        lines = self.account
        if self.labels is not None:
            lines.append(self.labels.sentence)
        for unit, parts in self.lengths.items():
            medians = ", ".join(f"{part} {summary.median:,.0f} ({summary.p95:,.0f})" for part, summary in parts.items())
            lines.append(f"{unit}, median (95th percentile): {medians}")
        lines.extend(_bias_line(unit, bias) for unit, bias in self.bias.items())
        lines.extend(_bias_line(f"characters, {source}", bias) for source, bias in self.bias_by_source.items())
        if self.cut_shares:
            shares = ", ".join(f"{share:.1%} of {side}" for side, share in self.cut_shares.items())
            lines.append(f"cut at the limit: {shares}")
        if self.overlap is not None:
            first = f" (first: {self.overlap[0]})" if self.overlap else ""
            lines.append(f"{len(self.overlap):,} kept rows hold an evaluation prompt{first}")
        return [*lines, *self.remarks]


def _bias_line(unit: str, bias: LengthBias) -> str:
    size = "" if bias.cohens_d is None else f", Cohen's d {bias.cohens_d:+.2f}"
    longer = (
        "of the label"
        if bias.chosen_longer is None
        else f"chosen longer in {bias.chosen_longer:.1%} of pairs, equal in {bias.same_length:.1%}"
    )
    return f"length bias in {unit}: {longer}{size}, AUC of length alone {bias.auc:.3f}"


def _example(row: RowProblem) -> str:
    return f"{row.id}, {row.detail}" if row.detail else row.id
