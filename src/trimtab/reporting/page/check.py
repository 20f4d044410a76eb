"""Did it harm? Tasks of lm-eval before and after."""

from __future__ import annotations

from trimtab.reporting.numbers.check import CheckNumbers, MeasureNumbers
from trimtab.reporting.sections import Block, Forest, ForestRow, Section, Sentences, Table, Text
from trimtab.reporting.text import estimate_text, number
from trimtab.reporting.words import check as words


def check(numbers: CheckNumbers | None) -> Section | None:
    """Every measure, the shares among them drawn."""
    if numbers is None or not numbers.measures:
        return None
    limit = "" if numbers.limit is None else f", the first {number(numbers.limit)} samples of each task"
    form = "in the chat template" if numbers.chat else "as plain text"
    lead = (
        f"Tasks of lm-eval {numbers.lm_eval}, asked {form}{limit}, of the unaligned and of the aligned model, paired "
        "by sample. Intervals are of the difference."
    )
    shares = [measure for measure in numbers.measures if measure.in_shares]
    blocks: list[Block] = [Text(lead, "lead"), Sentences(words.check(numbers))]
    if shares:
        rows = [
            ForestRow(
                f"{measure.task} {measure.measure}",
                measure.change.difference.scaled(100),
                f"{number(measure.change.difference.n)} samples",
            )
            for measure in shares
        ]
        blocks.append(Forest(rows, "Aligned minus unaligned, points", even=0.0))
    head = ["", "before", "after", "change, paired", "samples", "better is"]
    blocks.append(Table(head, [_row(measure) for measure in numbers.measures]))
    if numbers.left_out:
        blocks.append(Text(f"Without a value of each sample, so not compared: {', '.join(numbers.left_out)}.", "note"))
    return Section("check", "Harm", "Did it harm?", blocks)


def _row(measure: MeasureNumbers) -> list[str]:
    change, factor, digits = measure.change, 100 if measure.in_shares else 1, 1 if measure.in_shares else 3
    cells = [estimate_text(part.scaled(factor), digits=digits) for part in (change.before, change.after)]
    return [
        f"{measure.task} {measure.measure}{', %' if measure.in_shares else ''}",
        *cells,
        estimate_text(change.difference.scaled(factor), digits=digits),
        number(change.difference.n),
        "higher" if measure.higher_is_better else "lower",
    ]
