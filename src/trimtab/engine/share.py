"""Which pairs of an optimizer batch each process computes, and the batch put together again from what each found.

Pairs are dealt by what they are expected to cost, so that no process waits for another; pairs of one prompt stay
together, where they share its rows, unless they are more than one process's part. The same everywhere, without a word:
a pure function of the batch and the forecast. Dims: P pairs of the batch, R = 2P responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from trimtab.engine.batch_result import BatchResult, first_of_equal
from trimtab.engine.processes import Processes, deal
from trimtab.objectives import LogRatios
from trimtab.records import TokenPair

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a batch that this process has. `positions`: in the batch, of the pairs of each process."""

    processes: Processes
    positions: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, processes: Processes, pairs: Sequence[TokenPair], costs: Sequence[float]) -> Share:
        """`costs`: what each pair is expected to take, in any unit."""
        if processes.alone:
            return cls(processes, (tuple(range(len(pairs))),))
        families = _families(pairs, costs, limit=sum(costs) / processes.size)
        shares = deal([sum(costs[p] for p in family) for family in families], processes.size)
        return cls(processes, tuple(tuple(sorted(p for f in share for p in families[f])) for share in shares))

    @property
    def own(self) -> tuple[int, ...]:
        return self.positions[self.processes.rank]

    def pick(self, items: Sequence[T]) -> list[T]:
        """Of one item a pair, those of this process."""
        return [items[position] for position in self.own]

    def pick_R(self, values_R: Tensor | None) -> Tensor | None:
        """Of one number a response of the batch, those of this process."""
        return values_R if values_R is None or self.processes.alone else values_R.view(-1, 2)[list(self.own)].flatten()

    def whole(self, ratios: LogRatios) -> LogRatios:
        """The batch's log-ratios from each process's own."""
        parts = self.processes.gather(ratios)
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(LogRatios)}
        return self._log_ratios(columns)

    def join(self, parts: Sequence[BatchResult], pairs: Sequence[TokenPair]) -> BatchResult:
        """What the whole batch did. `pairs`: all of them; `parts`: what each process found, in order of rank."""
        if self.processes.alone:
            return parts[0]
        vectors = ["loss_P", *(f"{name}_R" for name in ("logps", "coefficients", "lengths"))]
        vectors += [f"{name}_R" for name in ("backward", "screened", "promoted", "stale")]
        ratios = {field.name: [getattr(part.log_ratios, field.name) for part in parts] for field in fields(LogRatios)}
        return BatchResult(
            **{name: self._merge([getattr(part, name) for part in parts]) for name in vectors},
            log_ratios=self._log_ratios(ratios),
            first_R=first_of_equal(pairs),
            forward_tokens=sum(part.forward_tokens for part in parts),
        )

    def _log_ratios(self, columns: Mapping[str, Sequence[Tensor | None]]) -> LogRatios:
        """Of the parts of each field; what one process does not know of its pairs (score gaps) nobody does."""
        tensors = {name: [part for part in parts if part is not None] for name, parts in columns.items()}
        names = [name for name, parts in columns.items() if len(tensors[name]) == len(parts)]
        return LogRatios(**{name: self._merge(tensors[name]) for name in names})

    def _merge(self, parts: Sequence[Tensor]) -> Tensor:
        """One number a pair, or two, from each process in the order of the batch."""
        order = torch.tensor([position for own in self.positions for position in own]).argsort()
        values = torch.cat(list(parts))
        return values.view(len(order), -1)[order].flatten()


def _families(pairs: Sequence[TokenPair], costs: Sequence[float], *, limit: float) -> list[list[int]]:
    """Positions of the pairs of each prompt, cut where they cost more than `limit`."""
    families: list[list[int]] = []
    newest: dict[tuple[int, ...], list[int]] = {}
    for position, pair in enumerate(pairs):
        family = newest.get(pair.prompt_ids)
        if family is None or sum(costs[p] for p in family) + costs[position] > limit:
            family = newest[pair.prompt_ids] = []
            families.append(family)
        family.append(position)
    return families
