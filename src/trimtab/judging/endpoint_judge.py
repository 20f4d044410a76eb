"""A model behind an endpoint as a judge of two answers, by one of AlpacaEval's prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab.endpoint import Reply
from trimtab.judging.judges import Comparison
from trimtab.judging.questions import Outcome, Question
from trimtab.judging.rubrics import NoLogProbsError, Rubric, is_switched, unswitched

Ask = Callable[[Sequence[Question]], Outcome]
"""Questions → what came of them: kept verdicts first, the rest asked of the endpoint."""


@dataclass(frozen=True, slots=True)
class EndpointJudge:
    """Shows the answers in AlpacaEval's seeded order, or in `both_orders`, the mean of which is the preference.

    A prompt that got no verdict in one of its orders has no preference.
    """

    model: str
    rubric: Rubric
    ask: Ask
    both_orders: bool = False

    @property
    def name(self) -> str:
        return f"{self.model} ({self.rubric.name}{', both orders' if self.both_orders else ''})"

    @property
    def order(self) -> str:
        """How the order of the two answers was chosen."""
        return "both orders" if self.both_orders else "official seeded order"

    def preferences(self, asked: Sequence[Comparison], /) -> list[float | None]:
        outcome = self.ask(self.questions(asked))
        return [self._mean(one, outcome) for one in asked]

    def questions(self, asked: Sequence[Comparison]) -> list[Question]:
        """One request for every comparison and order."""
        return [self._question(one, switched=switched) for one in asked for switched in self._orders(one)]

    def _orders(self, one: Comparison) -> tuple[bool, ...]:
        switched = is_switched(one.instruction)
        return (switched, not switched) if self.both_orders else (switched,)

    def _question(self, one: Comparison, *, switched: bool) -> Question:
        first, second = (one.model, one.baseline) if switched else (one.baseline, one.model)
        name = _id(one, switched=switched)
        request = self.rubric.request(name, one.instruction, first=first, second=second)
        return Question(id=name, request=request, parse=self._read)

    def _read(self, reply: Reply) -> float | None:
        """A single reply without log-probs, from an endpoint that gives them, is no verdict."""
        try:
            return self.rubric.parse(reply)
        except NoLogProbsError:
            return None

    def _mean(self, one: Comparison, outcome: Outcome) -> float | None:
        told = [
            unswitched(outcome.values.get(_id(one, switched=switched)), switched=switched)
            for switched in self._orders(one)
        ]
        known = [preference for preference in told if preference is not None]
        return sum(known) / len(known) if len(known) == len(told) else None


def _id(one: Comparison, *, switched: bool) -> str:
    return f"{one.prompt_id}{' (switched)' if switched else ''}"
