"""The small packs on which a scorer checks itself. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.engine.packing import Group, Pack, lay_out
from trimtab.engine.trie import Trie

_CHECK_GROUPS = 3  # more than one, so that leaks between groups show
_CHECK_TOKENS = 96  # a side: the check costs about as much as a step of eight pairs


def sample(groups: Sequence[Group]) -> Pack:
    """A few groups in one pack, each trimmed; never one alone, so that whatever leaks from group to group shows. The
    last one's first response branches half-way.

    Keys are our own: callers may hand in groups of several batches.
    """
    trimmed = [
        (group.prompt_ids[-_CHECK_TOKENS:], tuple(r[:_CHECK_TOKENS] for r in group.responses[:2]))
        for group in groups[:_CHECK_GROUPS]
    ]
    if len(trimmed) == 1:
        trimmed.append((trimmed[0][0][::-1], tuple(response[::-1] for response in trimmed[0][1])))
    prompt, (first, *others) = trimmed[-1]
    half = len(first) // 2
    trimmed[-1] = (prompt, (first, *others, (*first[:half], *prompt[half:], *first[:1])))
    return lay_out([Group(prompt, rs, tuple(range(3 * p, 3 * p + len(rs)))) for p, (prompt, rs) in enumerate(trimmed)])


def with_other_neighbours(pack: Pack) -> tuple[Pack, list[int]]:
    """The same pack with other tokens where some responses must not look, and the targets of those responses.

    Watched are the last response of each group but the first. The layout stays, so layers that keep sequences apart
    give the watched targets the very same numbers.
    """
    trie = Trie()
    watch_keys = {group.keys[-1] for group in pack.groups[1:]}
    visible: set[int] = set()
    for group in pack.groups:
        for key, response in zip(group.keys, group.responses, strict=True):
            rows = trie.add(group.prompt_ids + response, n_prompt=len(group.prompt_ids))
            visible |= set(rows) if key in watch_keys else set()
    ids = [
        token if row in visible else pack.ids_T[(row * 7 + 3) % pack.n_tokens] for row, token in enumerate(pack.ids_T)
    ]
    watch_rows = [row for span in pack.spans if span.key in watch_keys for row in span.rows]
    return replace(pack, ids_T=tuple(ids)), watch_rows
