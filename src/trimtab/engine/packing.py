"""Prompt groups laid out in one flat row, each response behind its own prompt, no padding. Pure Python.

    group:      [prompt][response][response]…      the prompt stands once for all its responses
    positions:   0…P−1   P…        P…              every response continues where the prompt ends
    take:        the row whose hidden state predicts a response token: the prompt's last row for a response's
                 first token, the token before for all others

A group never splits, so the two responses of a pair always meet in the same pack. Packing is a pure function of the
groups and the budget: best fit decreasing (first the longest group, each into the fullest pack that still holds it;
among equals the earlier one), then every pack's groups in the caller's order.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, assert_never

from trimtab.records import TokenPair

Layout = Literal["packed", "padded"]


class Segment(NamedTuple):
    """Lengths of a group in a pack: its prompt, its responses.

    `prompt_at`: the row of an earlier pack at which the prompt stands, if it does not stand in this one.
    """

    n_prompt: int
    lengths: tuple[int, ...]
    prompt_at: int | None = None

    @property
    def n_own_prompt(self) -> int:
        """Prompt rows in this pack."""
        return self.n_prompt if self.prompt_at is None else 0

    @property
    def n_rows(self) -> int:
        """Rows in this pack."""
        return self.n_own_prompt + sum(self.lengths)


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

    @property
    def segment(self) -> Segment:
        return Segment(len(self.prompt_ids), tuple(map(len, self.responses)))

    @classmethod
    def of_pair(cls, pair: TokenPair, index: int) -> Group:
        """The pair number `index` of an optimizer batch: chosen has key 2·index, rejected 2·index + 1."""
        return cls(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids), (2 * index, 2 * index + 1))

    def only(self, keys: Container[int]) -> Group | None:
        """The prompt with those of its responses that are among `keys`; None where none is."""
        pairs = [(key, ids) for key, ids in zip(self.keys, self.responses, strict=True) if key in keys]
        return Group(self.prompt_ids, tuple(ids for _, ids in pairs), tuple(key for key, _ in pairs)) if pairs else None


@dataclass(frozen=True, slots=True)
class Span:
    """Where one response's tokens stand among a pack's `targets`: [start, stop)."""

    key: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Pack:
    """One flat row of T tokens and what to read from it. N counts response tokens (targets).

    ids_T, positions_T: token ids and positions; segments: (prompt length, response lengths) a group, in row order;
    take_N: row that predicts each target; targets_N: the response tokens; spans: one a response, in target order;
    ends_R: row of each response's last token, in the spans' order.
    """

    groups: tuple[Group, ...]
    ids_T: tuple[int, ...]
    positions_T: tuple[int, ...]
    segments: tuple[Segment, ...]
    take_N: tuple[int, ...]
    targets_N: tuple[int, ...]
    spans: tuple[Span, ...]
    ends_R: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.ids_T)

    @property
    def prompts_at(self) -> dict[int, int]:
        """Pair → the row at which its prompt begins."""
        starts = itertools.accumulate((segment.n_rows for segment in self.segments), initial=0)
        return {group.pair: start for group, start in zip(self.groups, starts, strict=False)}

    def units(self, max_targets: int | None) -> list[tuple[Span, ...]]:
        """The responses cut into runs of whole groups, as many as `max_targets` targets hold; None for one run of all.
        A group is never cut."""
        ahead = iter(self.spans)
        runs: list[tuple[Span, ...]] = []
        for group in self.groups:
            spans = tuple(itertools.islice(ahead, len(group.keys)))
            if runs and (max_targets is None or spans[-1].stop - runs[-1][0].start <= max_targets):
                runs[-1] += spans
            else:
                runs.append(spans)
        return runs

    @property
    def keys(self) -> tuple[int, ...]:
        """The caller's response indices, in target order."""
        return tuple(span.key for span in self.spans)

    def at_ends(self) -> Pack:
        """The same rows, of which one a response is read: that of its last token, for what scores whole responses."""
        return replace(
            self,
            take_N=self.ends_R,
            targets_N=tuple(self.targets_N[span.stop - 1] for span in self.spans),
            spans=tuple(Span(span.key, place, place + 1) for place, span in enumerate(self.spans)),
        )

    @property
    def sequences(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Every response as a row of its own, in target order: (prompt + response ids, prompt length)."""
        return tuple((g.prompt_ids + r, len(g.prompt_ids)) for g in self.groups for r in g.responses)

    @property
    def n_sequence_tokens(self) -> int:
        """Tokens without prefix sharing: the prompt once for every response."""
        return sum(len(ids) for ids, _ in self.sequences)


def lay_out(groups: Sequence[Group], *, behind: Pack | None = None) -> Pack:
    """One pack of these groups, in this order.

    `behind`: an earlier pack that has a group with the same prompt for each of these. Only the responses get rows then,
    and `take_N` counts the earlier pack's rows first, this one's after them.
    """
    ids: list[int] = []
    positions: list[int] = []
    take: list[int] = []
    targets: list[int] = []
    spans: list[Span] = []
    ends: list[int] = []
    segments: list[Segment] = []
    stands = {} if behind is None else behind.prompts_at
    offset = 0 if behind is None else behind.n_tokens
    for group in groups:
        n_prompt = len(group.prompt_ids)
        prompt_at = stands[group.pair] if behind else None
        if prompt_at is None:
            ids += group.prompt_ids
            positions += range(n_prompt)
        last_prompt_row = len(ids) - 1 if prompt_at is None else prompt_at + n_prompt - 1
        segments.append(group.segment._replace(prompt_at=prompt_at))
        for key, response in zip(group.keys, group.responses, strict=True):
            first_row = offset + len(ids)
            ids += response
            positions += range(n_prompt, n_prompt + len(response))
            spans.append(Span(key, len(targets), len(targets) + len(response)))
            take.append(last_prompt_row)
            take += range(first_row, first_row + len(response) - 1)
            ends.append(first_row + len(response) - 1)
            targets += response
    return Pack(
        groups=tuple(groups),
        ids_T=tuple(ids),
        positions_T=tuple(positions),
        segments=tuple(segments),
        take_N=tuple(take),
        targets_N=tuple(targets),
        spans=tuple(spans),
        ends_R=tuple(ends),
    )


def pack_groups(groups: Sequence[Group], *, budget_tokens: int, layout: Layout = "packed") -> tuple[Pack, ...]:
    """Groups into packs of at most `budget_tokens` computed tokens; a group that is longer gets a pack of its own.

    `layout` says what a pack costs: "packed" counts the rows (prompts once, no padding), "padded" counts responses ×
    longest sequence, the rectangle that the fallback path computes.
    """
    assert budget_tokens > 0, "a pack holds at least one token"
    match layout:
        case "packed":
            bins = _best_fit_decreasing([group.n_tokens for group in groups], budget_tokens)
        case "padded":
            bins = _rectangles(groups, budget_tokens)
        case _:
            assert_never(layout)
    return tuple(lay_out([groups[index] for index in sorted(members)]) for members in bins)


def _best_fit_decreasing(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `sizes` in bins; O(n log n) comparisons: open bins are kept sorted by (room left, bin number)."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[index]
        at = bisect_left(room, (size, -1))
        if at < len(room):
            remaining, number = room.pop(at)
            bins[number].append(index)
        else:
            remaining, number = budget, len(bins)
            bins.append([index])
        if remaining > size:
            insort(room, (remaining - size, number))
    return bins


def _rectangles(groups: Sequence[Group], budget: int) -> list[list[int]]:
    """Indices of `groups` in bins of like length, so that little of each responses × longest rectangle is padding."""
    bins: list[list[int]] = []
    rows = longest = 0
    for index in sorted(range(len(groups)), key=lambda i: (-groups[i].longest_sequence, i)):
        group = groups[index]
        if bins and (rows + len(group.responses)) * longest <= budget:
            bins[-1].append(index)
            rows += len(group.responses)
        else:
            bins.append([index])
            rows, longest = len(group.responses), group.longest_sequence
    return bins
