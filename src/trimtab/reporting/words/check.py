"""The sentences that answer "did it harm?"."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.reporting.numbers.check import CheckNumbers, MeasureNumbers, better, worse
from trimtab.reporting.sections import Sentence, sentence
from trimtab.reporting.text import counted, interval, number, with_sign

CHANCE = 20  # measures of which one differs by chance alone at 95 %


def check(numbers: CheckNumbers | None) -> list[Sentence]:
    """What fell, what rose, and what a check of this size cannot see."""
    if numbers is None or not numbers.measures:
        return []
    fell, rose, of_all = worse(numbers), better(numbers), numbers.measures
    size = counted(len({measure.task for measure in of_all}), "task")
    scope = f"{size}, {counted(len(of_all), 'measure')} in all"
    conclusive = [measure for measure in of_all if measure.direction != "unknown"]
    if not conclusive:
        return [sentence(f"Whether it did harm cannot be said: too few samples ({scope}).", "warn")]
    if fell:
        sentences = [sentence(f"**It did harm** on lm-eval's tasks ({scope}): {_list(fell)}.", "bad")]
    else:
        room = _room(conclusive)
        rest = f"; they leave room for a loss of up to {room}" if room else ""
        sentences = [sentence(f"No harm on lm-eval's tasks, as far as these samples can tell ({scope}){rest}.", "even")]
    if rose:
        sentences.append(sentence(f"It does better than before on {_list(rose)}.", "good"))
    if len(of_all) >= CHANCE // 2 and (fell or rose):
        sentences.append(sentence(f"Of {len(of_all)} measures one in {CHANCE} differs by chance alone.", "plain"))
    return sentences


def change_text(measure: MeasureNumbers) -> str:
    """`−3.1 points, −5.9 to −0.4`, shares in percent points."""
    factor, digits, unit = (100, 1, " points") if measure.in_shares else (1, 3, "")
    difference = measure.change.difference.scaled(factor)
    return f"{with_sign(difference.value, digits=digits)}{unit}, {interval(difference.ci95, digits=digits)}"


def _list(measures: Sequence[MeasureNumbers]) -> str:
    return "; ".join(f"{measure.task} {measure.measure} ({change_text(measure)})" for measure in measures)


def _room(measures: Sequence[MeasureNumbers]) -> str:
    """The largest loss that an interval of a share still holds."""
    losses = [
        -ends[0] if measure.higher_is_better else ends[1]
        for measure in measures
        if measure.in_shares and (ends := measure.change.difference.ci95) is not None
    ]
    return f"{number(100 * max(losses))} points" if losses and max(losses) > 0 else ""
