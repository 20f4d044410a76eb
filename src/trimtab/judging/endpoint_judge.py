"""A model behind an endpoint as a judge of two answers, by one of AlpacaEval's prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.endpoint import Reply
from trimtab.judging.judges import Comparison
from trimtab.judging.questions import Outcome, Question
from trimtab.judging.rubrics import NoLogProbsError, Rubric, is_switched, unswitched

Ask = Callable[[Sequence[Question]], Outcome]
"""Questions → what came of them: cached verdicts first, the rest asked of the endpoint."""


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

    def preferences(self, comparisons: Sequence[Comparison], /) -> list[float | None]:
        values = self.ask(self.questions(comparisons)).values
        return [self._mean(comparison, values) for comparison in comparisons]

    def questions(self, comparisons: Sequence[Comparison]) -> list[Question]:
        """One request for every comparison and order."""
        return [
            self._question(comparison, model_first=model_first)
            for comparison in comparisons
            for model_first in self._orders(comparison)
        ]

    def by_position(
        self, comparisons: Sequence[Comparison], values: Mapping[str, float]
    ) -> tuple[list[float], list[float]]:
        """Preferences for the model where it was shown first, and second. `values`: what questions came to, by id."""
        first, second = list[float](), list[float]()
        for comparison in comparisons:
            for model_first in self._orders(comparison):
                preference = unswitched(values.get(_id(comparison, model_first=model_first)), switched=model_first)
                if preference is not None:
                    (first if model_first else second).append(preference)
        return first, second

    def _orders(self, comparison: Comparison) -> tuple[bool, ...]:
        model_first = is_switched(comparison.instruction)
        return (model_first, not model_first) if self.both_orders else (model_first,)

    def _question(self, comparison: Comparison, *, model_first: bool) -> Question:
        outputs = comparison.baseline, comparison.model
        first, second = reversed(outputs) if model_first else outputs
        name = _id(comparison, model_first=model_first)
        request = self.rubric.request(name, comparison.instruction, first=first, second=second)
        return Question(id=name, request=request, parse=self._read)

    def _read(self, reply: Reply) -> float | None:
        """A single reply without log-probs, from an endpoint that gives them, is no verdict."""
        try:
            return self.rubric.parse(reply)
        except NoLogProbsError:
            return None

    def _mean(self, comparison: Comparison, values: Mapping[str, float]) -> float | None:
        orders = self._orders(comparison)
        first, second = self.by_position([comparison], values)
        return sum(first + second) / len(orders) if len(first + second) == len(orders) else None


def _id(comparison: Comparison, *, model_first: bool) -> str:
    return f"{comparison.prompt_id}{' (switched)' if model_first else ''}"
