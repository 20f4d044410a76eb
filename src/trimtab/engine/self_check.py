"""Which of our ways through a model give that model's own numbers, tried on a few of its pairs before any is used.

The packed numbers of a few prompt groups, laid in one pack so that anything that mixes neighbours shows, are compared
with the model's own forward on one sequence at a time. Disagreement, or an exception, falls back to the padded path
with one line that says why. The same check tells whether our chunked head is this family's head, whether responses can
stand behind prompts that were computed before, and how far log-probabilities are from those in fp32: the noise of the
precision that is computed in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from trimtab.engine import self_check_packs
from trimtab.engine.attention import first_line, ways_for, why_no_gradient
from trimtab.engine.fused import Fusion
from trimtab.engine.head import Head, OwnLogits
from trimtab.engine.matmul import faster_linears
from trimtab.engine.noise import ROUNDING, Noise, Tolerance, in_fp32
from trimtab.engine.packing import Group, Pack, lay_out
from trimtab.engine.passes import Passes
from trimtab.engine.response_sums import rows_and_owners
from trimtab.engine.states import States
from trimtab.errors import ModelError

logger = logging.getLogger("trimtab")

Mode = Literal["auto", "on", "off"]
"""Of packs: where they are proved, always, never."""
TURNED_OFF = "turned off by configuration"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found to be right, the fastest of it. `reason`: why not packs, in one line; empty where packs are."""

    passes: Passes
    reason: str
    shares_prompts: bool
    noise: Noise


@torch.no_grad()
def prove(
    model: nn.Module, passes: Passes, pack: Pack, *, packed: Mode, reruns: bool = False, lean: bool = False
) -> Proof:
    """Proves layout, head and attention for `model`, of whose passes only base and products are taken as they come.

    Whether a way is right shows in exact products; what narrower ones add to it is measured after that. `reruns`: the
    backward pass runs layers again; `lean`: the head keeps as little as it can.

    Raises ModelError where even the padded path does not reproduce the model, or where `packed` is "on" and packs
    cannot be had.
    """
    model.eval()
    exact = replace(passes, products=faster_linears)
    truth_N = exact.one_at_a_time(pack)
    exact = replace(exact, head=_head(exact, pack, truth_N, lean=lean))
    exact, reason, logps_N = _fastest(model, exact, pack, truth_N, packed=packed, reruns=reruns)
    shares_prompts = not reason and isinstance(exact.head, Head) and _agrees(exact, _in_two, pack, truth_N)
    passes = replace(exact, products=passes.products)
    if exact.dtype == torch.bfloat16:
        truth_N = in_fp32(exact.base, lambda: exact.one_at_a_time(pack), otherwise=truth_N)
    if passes.products is not faster_linears:
        logps_N = _padded_logps(passes, pack) if reason else _packed_logps(passes, pack)
    rows, _ = rows_and_owners(pack.spans, device=exact.device)
    noise = Noise.between(truth_N[rows], logps_N[rows], [len(span.rows) for span in pack.spans])
    return Proof(passes, reason, shares_prompts, noise)


def _head(passes: Passes, pack: Pack, truth_N: Tensor, *, lean: bool) -> Head | OwnLogits:
    """Ours, in chunks, where it is the model's head; else the model's own logits."""
    base = passes.base
    head = Head.of(base) if base.base_model is not base else None
    if head is None:
        return OwnLogits()
    if not _head_agrees(replace(passes, head=head), pack, truth_N):
        logger.warning(
            "%s: its output head does more than its config says; logits are made whole, which costs memory",
            type(base).__name__,
        )
        return OwnLogits()
    return head.lean() if lean else head


def _head_agrees(passes: Passes, pack: Pack, truth_N: Tensor) -> bool:
    """On one sequence: what a head does it does to every row alike. A mean over so few rows is as coarse as one."""
    ids, n, rows = pack.examples[0]
    worst = ROUNDING[passes.dtype].worst
    ids_L = torch.tensor(ids, device=passes.device)

    def alone(passes: Passes, _: Pack) -> States:
        hidden_LH = passes.base.base_model(input_ids=ids_L[None], use_cache=False).last_hidden_state[0]
        return States(hidden_LH[n - 1 : -1], ids_L[n:])

    return _agrees(passes, alone, pack, truth_N[list(rows)], tolerance=Tolerance(worst, worst))


def _agrees(
    passes: Passes,
    path: Callable[[Passes, Pack], States],
    pack: Pack,
    truth_N: Tensor,
    *,
    tolerance: Tolerance | None = None,
) -> bool:
    try:
        return not (tolerance or ROUNDING[passes.dtype]).exceeded_by(passes.logps(path(passes, pack)), truth_N)
    except Exception:  # any failure of a path means the same: not this path
        return False


def _fastest(
    model: nn.Module, passes: Passes, pack: Pack, truth_N: Tensor, *, packed: Mode, reruns: bool
) -> tuple[Passes, str, Tensor]:
    """The passes to use, why they are not packed, and the log-probabilities [N] that they gave."""
    reason = TURNED_OFF
    if packed != "off":
        passes, reason, packed_N = _fastest_packed(model, passes, pack, truth_N, reruns=reruns)
        if packed_N is not None:
            return passes, "", packed_N
        if packed == "on":
            raise ModelError(
                f"engine.packed = on, but {reason}",
                remedy="Set engine.packed to auto: the padded path gives the same numbers at a higher cost.",
            )
        logger.warning("packed path off, padded path used: %s", reason)
    padded_N = _padded_logps(passes, pack)
    if ROUNDING[passes.dtype].exceeded_by(padded_N, truth_N):
        raise ModelError(
            f"{type(passes.base).__name__}: a padded batch does not give the numbers of one sequence at a time "
            f"(largest gap {(padded_N - truth_N).abs().max():.1e} nats a token)",
            remedy="Use float32 if this is bfloat16; otherwise this architecture cannot be trained in batches.",
        )
    return passes, reason, padded_N


def _fastest_packed(
    model: nn.Module, passes: Passes, pack: Pack, truth_N: Tensor, *, reruns: bool
) -> tuple[Passes, str, Tensor | None]:
    """The passes with the fastest way to attend that gives the model's numbers [N]; or why none does."""
    *faster, plain = ways_for(passes.device, passes.dtype)
    config = passes.base.config.get_text_config()
    for number, way in enumerate(faster):
        candidate = replace(passes, ways=(*faster[number:], plain))
        reason = why_no_gradient(way, config, device=passes.device, dtype=passes.dtype)
        if not reason:
            reason, packed_N = _try_packed(candidate, pack, truth_N)
            if packed_N is not None:
                return candidate, "", packed_N
        logger.warning("attention by %s is not used: %s", way.name, reason)
    plainly = replace(passes, ways=(plain,))
    fused = replace(plainly, fusion=Fusion.of(model, rerun=reruns))
    reason, packed_N = _try_packed(fused, pack, truth_N)
    if packed_N is not None:
        return fused, "", packed_N
    return plainly, *_try_packed(plainly, pack, truth_N)


def _try_packed(passes: Passes, pack: Pack, truth_N: Tensor) -> tuple[str, Tensor | None]:
    """Why these packs cannot be used, or their numbers [N]."""
    name = type(passes.base).__name__
    neighbours, watch_rows = self_check_packs.with_other_neighbours(pack)
    try:
        packed_N, neighbour_N = _packed_logps(passes, pack), _packed_logps(passes, neighbours)
    except Exception as error:  # whatever an unknown architecture raises, its own forward still works
        text = first_line(error)
        return text if name in text else f"{name}: {text}", None
    if ROUNDING[passes.dtype].exceeded_by(packed_N, truth_N):
        worst = (packed_N - truth_N).abs().max()
        return f"{name}: packed log-probabilities are off by up to {worst:.1e} nats a token", None
    leak_N = (packed_N - neighbour_N)[watch_rows].abs()
    if bool((leak_N > 4 * torch.finfo(passes.dtype).eps * packed_N[watch_rows].abs().clamp(min=1.0)).any()):
        return f"{name}: some layer mixes neighbouring sequences (by up to {leak_N.max():.1e} nats a token)", None
    return "", packed_N


def _packed_logps(passes: Passes, pack: Pack) -> Tensor:
    with passes.for_packs():
        return passes.logps(passes.packed(pack))


def _padded_logps(passes: Passes, pack: Pack) -> Tensor:
    with passes.products():
        return passes.logps(passes.padded(pack))


def _in_two(passes: Passes, pack: Pack) -> States:
    """A pack's first responses, then all others behind the prompts that are still there."""
    firsts = lay_out([Group(g.prompt_ids, g.responses[:1], g.keys[:1]) for g in pack.groups])
    other_groups = [Group(g.prompt_ids, g.responses[1:], g.keys[1:]) for g in pack.groups if len(g.keys) > 1]
    assert other_groups, "nothing to prove it with"
    tail = lay_out(other_groups, behind=firsts)
    with passes.for_packs():
        first = passes.packed(firsts, keep=True)
        assert first.prompt_states is not None
        tail_states = passes.behind(first.prompt_states, tail)
    place = {span.key: span.rows for span in pack.spans}
    order = [0] * len(pack.targets_N)
    for start, part in ((0, firsts), (len(firsts.targets_N), tail)):
        for span in part.spans:
            for row, own_row in zip(place[span.key], span.rows, strict=True):
                order[row] = start + own_row
    return States(
        torch.cat([first.hidden_NH, tail_states.hidden_NH])[order],
        torch.cat([first.targets_N, tail_states.targets_N])[order],
    )
