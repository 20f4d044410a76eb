"""Prompts and responses laid out in one flat row without padding, every distinct beginning once. Pure Python.

    group:      a prompt and some responses; groups that share a prompt, a response or the beginning of either share
                the rows of it (`trie`)
    take:       the row whose hidden state predicts a response token: that of the token before
    targets:    a response token behind what comes before it, once however many responses have it there

A group never splits, so the two responses of a pair always meet in the same pack. Packing is a pure function of the
groups and the budget. Groups of one prompt stay together as far as the budget holds them; such families are packed best
fit decreasing (first the largest, each into the pack where it adds least, then the fullest that still holds it; among
equals the earlier one).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, assert_never

from trimtab.engine.trie import Branch, Trie
from trimtab.records import TokenPair

Layout = Literal["packed", "padded"]


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and the responses that share it. `keys` are the caller's indices of the responses (0 … R−1).

    Neither the prompt nor a response may be empty: a response's first token is predicted by the prompt's last row.
    """

    prompt_ids: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    keys: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.prompt_ids, "a group needs a prompt: its last token predicts the first response token"
        assert self.responses, "a group needs a response"
        assert all(self.responses), "a response without tokens has no log-probability"
        assert len(self.keys) == len(self.responses), "one key per response"

    @property
    def n_tokens(self) -> int:
        """Rows of a pack that this group fills: the prompt once and every response."""
        return len(self.prompt_ids) + sum(map(len, self.responses))

    @property
    def longest_sequence(self) -> int:
        """Tokens of the prompt with the longest response behind it."""
        return len(self.prompt_ids) + max(map(len, self.responses))

    @property
    def pair(self) -> int:
        """The pair that a group made by `of_pair` belongs to, whole or in part."""
        return self.keys[0] // 2

    @classmethod
    def of_pair(cls, pair: TokenPair, index: int) -> Group:
        """The pair number `index` of an optimizer batch: chosen has key 2·index, rejected 2·index + 1; those it has."""
        keys = tuple(2 * index + side for side, _ in pair.sides)
        return cls(pair.prompt_ids, tuple(ids for _, ids in pair.sides), keys)

    def only(self, keys: Container[int]) -> Group | None:
        """The prompt with those of its responses that are among `keys`; None where none is."""
        pairs = [(key, ids) for key, ids in zip(self.keys, self.responses, strict=True) if key in keys]
        return Group(self.prompt_ids, tuple(ids for _, ids in pairs), tuple(key for key, _ in pairs)) if pairs else None


@dataclass(frozen=True, slots=True)
class Span:
    """One response's tokens: where each stands among a pack's `targets`, in order."""

    key: int
    rows: tuple[int, ...]


class Unit(NamedTuple):
    """Responses whose targets are the rows [start, stop), and no other response's."""

    start: int
    stop: int
    spans: tuple[Span, ...]


class Example(NamedTuple):
    """A prompt with one response: ids of both, the prompt's length, and the response's rows among the targets."""

    ids: tuple[int, ...]
    n_prompt: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """One flat row of T tokens and what to read from it. N counts response tokens (targets), the same once.

    ids_T, positions_T: token ids and positions; branches: which row stands behind which, in row order; take_N: row that
    predicts each target; targets_N: the response tokens; spans: one a key, in the groups' order;
    ends_R: row of each response's last token, in the same order.
    """

    groups: tuple[Group, ...]
    ids_T: tuple[int, ...]
    positions_T: tuple[int, ...]
    branches: tuple[Branch, ...]
    take_N: tuple[int, ...]
    targets_N: tuple[int, ...]
    spans: tuple[Span, ...]
    ends_R: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.ids_T)

    def units(self, max_targets: int | None) -> list[Unit]:
        """The responses cut into runs of whole groups, as many as `max_targets` targets hold; None for one run of all.
        Neither a group nor groups that share targets are cut."""
        ahead = iter(self.spans)
        runs: list[Unit] = []
        for group in self.groups:
            spans = tuple(next(ahead) for _ in group.keys)
            start, stop = min(min(span.rows) for span in spans), 1 + max(max(span.rows) for span in spans)
            while runs and start < runs[-1].stop:
                before = runs.pop()
                start, stop, spans = min(start, before.start), max(stop, before.stop), before.spans + spans
            runs.append(Unit(start, stop, spans))
        return _join(runs, max_targets)

    @property
    def keys(self) -> tuple[int, ...]:
        """The caller's response indices, in the groups' order."""
        return tuple(span.key for span in self.spans)

    def at_ends(self) -> Pack:
        """The same rows, of which one a response is read: that of its last token, for what scores whole responses."""
        rows = {row: place for place, row in enumerate(dict.fromkeys(self.ends_R))}
        last_ids = dict(zip(self.ends_R, (ids[-1] for group in self.groups for ids in group.responses), strict=True))
        return replace(
            self,
            take_N=tuple(rows),
            targets_N=tuple(last_ids[row] for row in rows),
            spans=tuple(Span(span.key, (rows[end],)) for span, end in zip(self.spans, self.ends_R, strict=True)),
        )

    @property
    def examples(self) -> tuple[Example, ...]:
        """Every distinct response with its prompt, as a sequence of its own."""
        responses = ((g.prompt_ids + r, len(g.prompt_ids)) for g in self.groups for r in g.responses)
        rows = {response: span.rows for response, span in zip(responses, self.spans, strict=True)}
        return tuple(Example(ids, n_prompt, of) for (ids, n_prompt), of in rows.items())


def _join(units: Sequence[Unit], max_targets: int | None) -> list[Unit]:
    """Neighbours together, as far as `max_targets` goes."""
    joint: list[Unit] = []
    for unit in units:
        if joint and (max_targets is None or unit.stop - joint[-1].start <= max_targets):
            joint[-1] = Unit(joint[-1].start, unit.stop, joint[-1].spans + unit.spans)
        else:
            joint.append(unit)
    return joint


def lay_out(groups: Sequence[Group], *, behind: Pack | None = None) -> Pack:
    """One pack of these groups, in this order.

    `behind`: an earlier pack. Only what it does not have gets rows then, and `take_N` counts the earlier pack's rows
    first, this one's after them; so do the parents of branches.
    """
    trie = Trie()
    if behind is not None:
        for group in behind.groups:
            _add(trie, group)
    n_branches, n_rows = len(trie.branches), len(trie.ids)
    targets: dict[tuple[int, int], int] = {}
    spans: list[Span] = []
    ends: list[int] = []
    for group in groups:
        for key, rows, response in zip(group.keys, _add(trie, group), group.responses, strict=True):
            reads = zip(rows[len(group.prompt_ids) - 1 : -1], response, strict=True)
            spans.append(Span(key, tuple(targets.setdefault(read, len(targets)) for read in reads)))
            ends.append(rows[-1])
    return Pack(
        groups=tuple(groups),
        ids_T=tuple(trie.ids[n_rows:]),
        positions_T=tuple(trie.positions[n_rows:]),
        branches=tuple(trie.branches[n_branches:]),
        take_N=tuple(row for row, _ in targets),
        targets_N=tuple(token for _, token in targets),
        spans=tuple(spans),
        ends_R=tuple(ends),
    )


def _add(trie: Trie, group: Group) -> list[list[int]]:
    """The rows of each of a group's sequences."""
    n_prompt = len(group.prompt_ids)
    return [trie.add(group.prompt_ids + response, n_prompt=n_prompt) for response in group.responses]


def pack_groups(groups: Sequence[Group], *, budget_tokens: int, layout: Layout = "packed") -> tuple[Pack, ...]:
    """Groups into packs of at most `budget_tokens` computed tokens; a group that is longer gets a pack of its own.

    `layout` says what a pack costs: "packed" counts the rows (every distinct beginning once, no padding), "padded"
    counts distinct responses × longest sequence, the rectangle that the fallback path computes.
    """
    assert budget_tokens > 0, "a pack holds at least one token"
    match layout:
        case "packed":
            bins = _best_fit_decreasing(list(_families(groups, budget_tokens)), budget_tokens)
        case "padded":
            bins = _rectangles(groups, budget_tokens)
        case _:
            assert_never(layout)
    first: dict[tuple[int, ...], int] = {}
    for index, group in enumerate(groups):
        first.setdefault(group.prompt_ids, index)
    # groups of one prompt are neighbours, so that what shares targets is solved together and nothing else
    orders = (sorted(members, key=lambda index: (first[groups[index].prompt_ids], index)) for members in bins)
    return tuple(lay_out([groups[index] for index in order]) for order in orders)


@dataclass(slots=True)
class _Family:
    """Groups of one prompt, by index, and the rows that they take."""

    prompt_ids: tuple[int, ...]
    members: list[int]
    n_rows: int


def _families(groups: Sequence[Group], budget: int) -> Iterator[_Family]:
    """Groups by prompt. Where those of one prompt are too many for a pack, so many as it holds, like ones together."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, group in enumerate(groups):
        by_prompt.setdefault(group.prompt_ids, []).append(index)
    for members in by_prompt.values():
        whole, *further = _cut(groups, members, budget)
        if further:
            yield from _cut(groups, sorted(members, key=lambda i: (groups[i].responses, i)), budget)
        else:
            yield whole


def _cut(groups: Sequence[Group], members: Sequence[int], budget: int) -> Iterator[_Family]:
    """Members in their order, a new part where the budget would be exceeded."""
    prompt_ids = groups[members[0]].prompt_ids
    trie, part, n_rows = Trie(), list[int](), 0
    for index in members:
        _add(trie, groups[index])
        if part and len(trie.ids) > budget:
            yield _Family(prompt_ids, part, n_rows)
            trie, part = Trie(), []
            _add(trie, groups[index])
        part.append(index)
        n_rows = len(trie.ids)
    yield _Family(prompt_ids, part, n_rows)


@dataclass(slots=True)
class _Bin:
    members: list[int] = field(default_factory=list)
    n_rows: int = 0
    prompts: Trie = field(default_factory=Trie)


def _best_fit_decreasing(families: Sequence[_Family], budget: int) -> list[list[int]]:
    """Indices of groups in bins."""
    bins: list[_Bin] = []
    for family in sorted(families, key=lambda family: (-family.n_rows, family.members[0])):
        prompt_ids = family.prompt_ids
        room = budget - family.n_rows
        added = {
            number: family.n_rows - bin_.prompts.n_known(prompt_ids)
            for number, bin_ in enumerate(bins)
            if bin_.n_rows - len(prompt_ids) <= room  # else not even if all of its prompt is there
        }
        fits = [number for number, n in added.items() if bins[number].n_rows + n <= budget]
        best = min(fits, key=lambda number: (added[number], -bins[number].n_rows, number), default=len(bins))
        if best == len(bins):
            bins.append(_Bin())
        chosen = bins[best]
        chosen.members += family.members
        chosen.n_rows += added.get(best, family.n_rows)
        chosen.prompts.add(prompt_ids, n_prompt=len(prompt_ids))
    return [bin_.members for bin_ in bins]


def _rectangles(groups: Sequence[Group], budget: int) -> list[list[int]]:
    """Indices of `groups` in bins of like length, so that little of each responses × longest rectangle is padding."""
    bins: list[list[int]] = []
    rows: set[tuple[int, ...]] = set()
    longest = 0
    for index in sorted(range(len(groups)), key=lambda i: (-groups[i].longest_sequence, i)):
        group = groups[index]
        own = {group.prompt_ids + response for response in group.responses}
        if bins and len(rows | own) * longest <= budget:
            bins[-1].append(index)
            rows |= own
        else:
            bins.append([index])
            rows, longest = own, group.longest_sequence
    return bins
