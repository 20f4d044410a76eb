"""The small packs on which a scorer checks itself. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.engine.packing import Group, Pack, lay_out

_CHECK_GROUPS = 3  # more than one, so that leaks between groups show
_CHECK_TOKENS = 96  # a side, so that the check costs a fraction of a step


def sample(groups: Sequence[Group]) -> Pack:
    """A few groups in one pack, each trimmed; never one alone, so that whatever leaks from group to group shows.

    Keys are our own: callers may hand in groups of several batches.
    """
    trimmed = [
        (group.prompt_ids[-_CHECK_TOKENS:], tuple(r[:_CHECK_TOKENS] for r in group.responses[:2]))
        for group in groups[:_CHECK_GROUPS]
    ]
    if len(trimmed) == 1:
        trimmed.append((trimmed[0][0][::-1], trimmed[0][1][::-1]))
    return lay_out([Group(prompt, rs, (2 * p, 2 * p + 1)[: len(rs)]) for p, (prompt, rs) in enumerate(trimmed)])


def with_other_neighbours(pack: Pack) -> tuple[Pack, list[int]]:
    """The same pack with other tokens where some responses must not look, and the targets of those responses.

    All of the first group is changed, and the first of several responses in every other group. Lengths stay, so layers
    that keep sequences apart give the watched targets the very same numbers.
    """
    keys = {group.keys[0] for group in pack.groups[1:] if len(group.keys) > 1} | set(pack.groups[0].keys)

    def replace_ids(ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(pack.ids_T[(at * 7 + 3) % pack.n_tokens] for at in range(len(ids)))

    first, *other_groups = pack.groups
    groups = [
        Group(
            replace_ids(group.prompt_ids) if group is first else group.prompt_ids,
            tuple(replace_ids(r) if key in keys else r for r, key in zip(group.responses, group.keys, strict=True)),
            group.keys,
        )
        for group in (first, *other_groups)
    ]
    watch_rows = [at for span in pack.spans if span.key not in keys for at in range(span.start, span.stop)]
    return lay_out(groups), watch_rows
