"""Pack budget and checkpointing: as configured, else as the memory that is free right now wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.engine import grouping, memory, recompute
from trimtab.engine.packing import Layout
from trimtab.records import TokenPair
from trimtab.runtime.run_setup import RunSetup


def fit(setup: RunSetup, *, pairs: Sequence[TokenPair]) -> memory.Fit:
    """Tokens a pack and checkpointing. Processes on one host share its memory, but for that of GPUs."""
    engine, sharers = setup.config.engine, 1 if setup.device.type == "cuda" else setup.processes.local_size
    mode = engine.checkpointing
    if mode == "auto" and not setup.memory_shape.layers_rerun:
        mode = "off"

    def prediction(pack_tokens: int, checkpointing: recompute.Mode) -> memory.Prediction:
        return predict(setup, pack_tokens=pack_tokens, pairs=pairs, response_share=1.0, checkpointing=checkpointing)

    return memory.fit(
        prediction,
        device=setup.device,
        longest_group=longest_group(setup, pairs),
        largest_family=_largest_family(setup, pairs),
        pack_tokens=engine.pack_tokens,
        checkpointing=None if mode == "auto" else mode,
        free=memory.free_bytes(setup.device) // sharers,
    )


def _largest_family(setup: RunSetup, pairs: Sequence[TokenPair]) -> int:
    """Unpaired rows are one response each, and are not laid out by prompt; nor is what is padded."""
    return (
        0
        if setup.objective.is_unpaired or is_padded(setup)
        else grouping.largest_family(setup.training_order(pairs), pairs)
    )


def longest_group(setup: RunSetup, pairs: Sequence[TokenPair]) -> int:
    """Tokens of the largest pair as it is computed."""
    return max(len(pair.sides) * longest_sequence([pair]) if is_padded(setup) else pair.n_tokens for pair in pairs)


def rectangle(setup: RunSetup, pairs: Sequence[TokenPair]) -> int:
    """Tokens of a whole batch that is padded: every response with its prompt, as long as the longest."""
    return 2 * setup.config.train.batch_pairs * longest_sequence(pairs)


def computed_tokens(setup: RunSetup, *, pack_tokens: int, pairs: Sequence[TokenPair]) -> int:
    """Of the first epoch, in packs of this size."""
    layout: Layout = "padded" if is_padded(setup) else "packed"
    return grouping.computed_tokens(setup.training_order(pairs), pairs, pack_tokens=pack_tokens, layout=layout)


def is_padded(setup: RunSetup) -> bool:
    """Whether responses are computed as rectangles, each behind its own prompt, as far as is known beforehand."""
    return setup.config.engine.packed == "off" or bool(setup.memory_shape.eager_heads)


@dataclass(frozen=True, slots=True)
class Leaner:
    """Another way to train, in less memory: its peak in bytes, and how much more time it takes, as a share."""

    pack_tokens: int
    checkpointing: recompute.Mode
    peak: int
    more_time: float


def leaner(
    setup: RunSetup, fit: memory.Fit, *, pairs: Sequence[TokenPair], response_share: float, base: int, peak: int
) -> Leaner | None:
    """The quickest way with at most half of `peak`, or else the one with the least; None where none needs less."""
    longest = longest_group(setup, pairs)
    sizes = [fit.pack_tokens]
    while sizes[-1] > max(longest, memory.LEAST_PACK):
        sizes.append(max(sizes[-1] // 2, longest))
    modes = recompute.MODES if setup.memory_shape.layers_rerun else ("off",)

    def time(pack_tokens: int, mode: recompute.Mode) -> float:
        return memory.seconds(
            setup.memory_shape,
            tokens=1,
            response_share=response_share,
            speed=1.0,
            checkpointing=mode,
            pack_tokens=pack_tokens,
        )

    def way(pack_tokens: int, mode: recompute.Mode) -> Leaner:
        prediction = predict(
            setup, pack_tokens=pack_tokens, pairs=pairs, response_share=response_share, checkpointing=mode, base=base
        )
        more_time = time(pack_tokens, mode) / time(fit.pack_tokens, fit.checkpointing) - 1
        return Leaner(pack_tokens, mode, prediction.peak, more_time)

    ways = [way(size, mode) for size in sizes for mode in modes]
    small = [way for way in ways if way.peak <= peak / 2]
    best = min(small, key=lambda way: way.more_time) if small else min(ways, key=lambda way: way.peak)
    return best if best.peak < peak else None


def predict(
    setup: RunSetup,
    *,
    pack_tokens: int,
    pairs: Sequence[TokenPair],
    response_share: float,
    checkpointing: recompute.Mode,
    base: int = 0,
) -> memory.Prediction:
    """`memory.predict` of this run. `response_share`: of a pack's tokens; `base`: bytes held before the model is."""
    shape = setup.memory_shape
    return memory.predict(
        replace(shape, fused=False) if is_padded(setup) else shape,
        dtype=setup.dtype,
        device=setup.device,
        pack_tokens=pack_tokens,
        response_share=response_share,
        base=base,
        longest_sequence=longest_sequence(pairs),
        checkpointing=checkpointing,
        mixed=setup.precision == "mixed",
        eight_bit=setup.config.train.optimizer == "adamw_8bit",
    )


def pack_tokens(setup: RunSetup, *, pairs: Sequence[TokenPair]) -> int:
    """Tokens a pack: as configured, else what the free memory holds."""
    return setup.config.engine.pack_tokens or fit(setup, pairs=pairs).pack_tokens


def longest_sequence(pairs: Sequence[TokenPair]) -> int:
    """Tokens of the longest prompt with one response."""
    return max(len(p.prompt_ids) + max(len(p.chosen_ids), len(p.rejected_ids)) for p in pairs)
