"""How far the policy is from its reference on completions that do not belong to their prompts: the z₀ of KTO.

For each row its prompt is put before the completion of another row. Which, is drawn once for a data set, so that the
reference's numbers are computed once; good and bad completions come as they are mixed in the data, and never from the
same prompt where there is another. The mean log-ratio of a batch's mismatched rows estimates
KL(policy ‖ reference) as arXiv 2402.01306 §4.1 has it, and TRL 1.16. TRL takes the completion of the row before in the
file, whatever its prompt and its kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.engine import evaluation
from trimtab.engine.order import permutation
from trimtab.engine.processes import ALONE, Processes
from trimtab.engine.reference import Reference
from trimtab.engine.scoring import Scorer
from trimtab.objectives import Objective
from trimtab.records import TokenPair

_DRAW = 0xD1F  # in place of an epoch: this order is no epoch's


def mismatches(rows: Sequence[TokenPair]) -> list[TokenPair]:
    """For each unpaired row, its prompt with another row's completion, cut where that would make the longest row of
    all longer. A function of the rows alone."""
    if not rows:
        return []
    order = permutation(len(rows), seed=0, epoch=_DRAW).tolist()
    longest = max((row.n_tokens for row in rows), default=0)
    donors = dict(zip(order, _donors([rows[i] for i in order]), strict=True))
    return [_with_completion(row, donors[i], room=longest - len(row.prompt_ids)) for i, row in enumerate(rows)]


def _donors(rows: Sequence[TokenPair]) -> list[TokenPair]:
    """For each row the one before it, around the end, passing over those of the same prompt if there are others."""
    n, donors = len(rows), [*rows[-1:], *rows[:-1]]
    if len({row.prompt_ids for row in rows}) == 1:
        return donors
    for place in range(2 * n):  # twice around: at first nobody knows what is before the first row
        row, before = rows[place % n], rows[(place - 1) % n]
        donors[place % n] = before if before.prompt_ids != row.prompt_ids else donors[(place - 1) % n]
    return donors


def _with_completion(row: TokenPair, donor: TokenPair, *, room: int) -> TokenPair:
    ((_, ids),) = donor.sides
    foreign = donor.chosen_foreign or donor.rejected_foreign
    return replace(
        row,
        chosen_ids=ids[:room],
        rejected_ids=(),
        chosen_cut=len(ids) > room,
        rejected_cut=False,
        chosen_foreign=tuple((start, min(end, room)) for start, end in foreign if start < room),
        rejected_foreign=(),
    )


def estimate(
    scorer: Scorer,
    rows: Sequence[TokenPair],
    *,
    reference: Reference,
    pack_tokens: int,
    processes: Processes = ALONE,
) -> float:
    """Mean log-ratio of these mismatched rows, nats a completion; one forward pass without a gradient. Each process
    computes a part, and all have the mean of all."""
    logps = evaluation.by_token(scorer, rows, pack_tokens=pack_tokens, processes=processes)
    log_ratios = (
        float(policy.double().sum() - of_reference.double().sum())
        for policy, of_reference in zip(logps, reference.of_pairs(rows), strict=True)
    )
    return sum(log_ratios) / len(rows)


def rows_for(objective: Objective, rows: Sequence[TokenPair]) -> list[TokenPair]:
    """Those that the objective needs beside its own: none, or `mismatches`."""
    return mismatches(rows) if objective.needs_kl else []
