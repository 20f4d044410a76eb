"""Whether pairs of one prompt go into one batch, where what they share is computed once, and what a batch then costs.

Pairs of a prompt together cost less and teach less a batch: their gradients resemble each other. So `auto` groups only
where that saves a good part of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trimtab.engine.order import Order
from trimtab.engine.packing import Group, Layout, Pack, lay_out, pack_groups
from trimtab.errors import ConfigError
from trimtab.records import TokenPair

GroupBy = Literal["prompt", "none", "auto"]

WORTHWHILE = 0.75  # of the tokens of mixed batches: `auto` groups where no more than this is left
COUNTED_BATCHES = 100  # laid out for an estimate: of a longer epoch, spread over it


def order_by(group_by: GroupBy, order: Order, pairs: Sequence[TokenPair]) -> Order:
    """`order` with the prompts of these pairs, if they are to go by prompt and if any prompt has several of them."""
    numbers: dict[tuple[int, ...], int] = {}
    prompts = tuple(numbers.setdefault(pair.prompt_ids, len(numbers)) for pair in pairs)
    if group_by == "none" or len(numbers) == len(pairs):
        return order
    by_prompt = replace(order, prompts=prompts)
    if group_by == "prompt" or _texts(by_prompt, pairs) <= WORTHWHILE * _texts(order, pairs):
        return by_prompt
    return order


def order_of_unpaired(order: Order, rows: Sequence[TokenPair]) -> Order:
    """`order` with good and bad rows in every batch. Raises ConfigError where a batch is too small for that."""
    labels = tuple(bool(row.chosen_ids) for row in rows)
    by_label = replace(order, labels=labels)
    if by_label.is_mixed:
        return by_label
    n_good = sum(labels)
    assert 0 < n_good < len(rows), "`prepare` refuses rows of one kind"
    rare, n_rare = ("good", n_good) if 2 * n_good < len(rows) else ("bad", len(rows) - n_good)
    enough = next(n for n in range(len(rows) // n_rare, len(rows) + 1) if replace(by_label, batch_pairs=n).is_mixed)
    raise ConfigError(
        f"{n_rare:,} of {len(rows):,} training rows are {rare}: some batches of {order.batch_pairs} would have none",
        remedy=f"set train.batch_pairs to {enough}, or bring more rows that are {rare}",
    )


def _texts(order: Order, pairs: Sequence[TokenPair]) -> int:
    """Tokens of the first epoch's distinct prompts and responses, batch by batch."""
    n_tokens = 0
    for step in range(order.steps_per_epoch):
        families = _families([pairs[i] for i in order.batch(step).indices])
        n_tokens += sum(len(prompt) + sum(map(len, responses)) for prompt, responses in families.items())
    return n_tokens


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one epoch computes, each batch laid out whole: tokens, response tokens among them (each distinct one behind
    the same text once), and tokens of the largest batch."""

    epoch: int
    responses: int
    largest_batch: int


def largest_family(order: Order, pairs: Sequence[TokenPair]) -> int:
    """Tokens of a prompt and the distinct responses behind it, the most of any batch of the first epoch; of a long
    epoch `COUNTED_BATCHES` are looked at."""
    return max(
        len(prompt) + sum(len(ids) for ids in responses)
        for batch in _counted_batches(order, pairs)
        for prompt, responses in _families(batch).items()
    )


def _families(batch: Sequence[TokenPair]) -> dict[tuple[int, ...], set[tuple[int, ...]]]:
    """The distinct responses behind each prompt."""
    families: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for pair in batch:
        families.setdefault(pair.prompt_ids, set()).update(ids for _, ids in pair.sides)
    return families


def _counted_batches(order: Order, pairs: Sequence[TokenPair]) -> list[list[TokenPair]]:
    """Of the first epoch, spread over it."""
    steps, n = order.steps_per_epoch, min(order.steps_per_epoch, COUNTED_BATCHES)
    return [[pairs[i] for i in order.batch(steps * number // n).indices] for number in range(n)]


def computed_tokens(order: Order, pairs: Sequence[TokenPair], *, pack_tokens: int, layout: Layout) -> int:
    """Of the first epoch in packs of this size: what stands in several packs once in each, and in rectangles the
    padding; estimated as `count` does."""
    steps, batches = order.steps_per_epoch, _counted_batches(order, pairs)
    packs = [
        pack
        for batch in batches
        for pack in pack_groups(
            [Group.of_pair(pair, at) for at, pair in enumerate(batch)], budget_tokens=pack_tokens, layout=layout
        )
    ]
    return steps * sum(pack.n_tokens if layout == "packed" else _rectangle(pack) for pack in packs) // len(batches)


def _rectangle(pack: Pack) -> int:
    sequences = {example.ids for example in pack.examples}
    return len(sequences) * max(map(len, sequences))


def count(order: Order, pairs: Sequence[TokenPair]) -> Tokens:
    """Of the first epoch; estimated from `COUNTED_BATCHES` of its batches where there are more."""
    steps, batches = order.steps_per_epoch, _counted_batches(order, pairs)
    packs = [lay_out([Group.of_pair(pair, at) for at, pair in enumerate(batch)]) for batch in batches]
    n = len(batches)
    return Tokens(
        epoch=steps * sum(pack.n_tokens for pack in packs) // n,
        responses=steps * sum(len(pack.targets_N) for pack in packs) // n,
        largest_batch=max(pack.n_tokens for pack in packs),
    )
