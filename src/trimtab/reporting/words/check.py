"""The sentences that answer "did it harm?"."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis.comparison import MIN_COMMON
from trimtab.reporting.numbers.check import CheckNumbers, MeasureNumbers, better, worse
from trimtab.reporting.sections import Sentence, sentence
from trimtab.reporting.text import counted, interval, number, significant, with_sign

CHANCE = 20  # measures of which one differs by chance alone at 95 %


def check(numbers: CheckNumbers | None) -> list[Sentence]:
    """What fell, what rose, and what a check of this size cannot see: of the measures that can say it. The first
    sentence names those that cannot."""
    if numbers is None or not numbers.measures:
        return []
    conclusive = [measure for measure in numbers.measures if measure.direction != "unknown"]
    inconclusive = [measure for measure in numbers.measures if measure.direction == "unknown"]
    silence = "".join(f"; {text}" for text in _silence(inconclusive))
    if not conclusive:
        scope = _scope(inconclusive, n_all=len(inconclusive))
        return [sentence(f"Whether it did harm cannot be said ({scope}){silence}.", "warn")]
    fell, rose, scope = worse(numbers), better(numbers), _scope(conclusive, n_all=len(numbers.measures))
    if fell:
        sentences = [sentence(f"**It did harm** on lm-eval's tasks ({scope}): {_list(fell)}{silence}.", "bad")]
    else:
        verdict = f"No harm on lm-eval's tasks, as far as these samples can tell ({scope})"
        sentences = [sentence(f"{verdict}; {_room(conclusive)}{silence}.", "even")]
    if rose:
        sentences.append(sentence(f"It does better than before on {_list(rose)}.", "good"))
    if len(conclusive) >= CHANCE // 2 and (fell or rose):
        sentences.append(sentence(f"Of {len(conclusive)} measures one in {CHANCE} differs by chance alone.", "plain"))
    return sentences


def change_text(measure: MeasureNumbers) -> str:
    """`−3.1 points, −5.9 to −0.4`, shares in percent points."""
    factor, digits, unit = (100, 1, " points") if measure.in_shares else (1, 3, "")
    difference = measure.change.difference.scaled(factor)
    return f"{with_sign(difference.value, digits=digits)}{unit}, {interval(difference.ci95, digits=digits)}"


def _scope(measures: Sequence[MeasureNumbers], *, n_all: int) -> str:
    """`2 tasks, 3 measures in all`, or `2 tasks, 3 of 4 measures`."""
    tasks = counted(len({measure.task for measure in measures}), "task")
    if len(measures) == n_all:
        return f"{tasks}, {counted(n_all, 'measure')} in all"
    return f"{tasks}, {len(measures)} of {counted(n_all, 'measure')}"


def _list(measures: Sequence[MeasureNumbers]) -> str:
    return "; ".join(f"{_name(measure)} ({change_text(measure)})" for measure in measures)


def _name(measure: MeasureNumbers) -> str:
    return f"{measure.task} {measure.measure}"


def _silence(measures: Sequence[MeasureNumbers]) -> list[str]:
    """Why measures say nothing: too few samples, or differences of which no interval can be made."""
    small = [measure for measure in measures if measure.change.difference.n < MIN_COMMON]
    equal = [measure for measure in measures if measure.change.difference.n >= MIN_COMMON]
    reasons = ((small, "too few samples to say"), (equal, "no interval"))
    return [
        f"{counted(len(group), 'measure')} ({', '.join(map(_name, group))}) "
        f"{'has' if len(group) == 1 else 'have'} {reason}"
        for group, reason in reasons
        if group
    ]


def _room(measures: Sequence[MeasureNumbers]) -> str:
    """The largest losses that the intervals still hold: of all shares in points, of any other measure in its unit."""
    losses = [(measure, loss) for measure in measures if (loss := _loss(measure)) > 0]
    shares = [loss for measure, loss in losses if measure.in_shares]
    rooms = [f"{number(100 * max(shares))} points"] if shares else []
    rooms += [f"{significant(loss)} in {_name(measure)}" for measure, loss in losses if not measure.in_shares]
    if not rooms:
        return "they leave no room for a loss"
    return f"they leave room for a loss of up to {' and '.join(rooms)}"


def _loss(measure: MeasureNumbers) -> float:
    """The worst end of an interval as a loss, in the measure's own unit."""
    ends = measure.change.difference.ci95
    assert ends is not None, "of conclusive measures alone"
    return -ends[0] if measure.higher_is_better else ends[1]
