"""Pack budget and checkpointing: as configured, else as the memory that is free right now wants them."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.engine import memory, recompute
from trimtab.records import TokenPair
from trimtab.runtime.run_setup import RunSetup


def fit(setup: RunSetup, *, pairs: Sequence[TokenPair]) -> memory.Fit:
    """Tokens a pack and checkpointing."""
    engine = setup.config.engine
    mode = engine.checkpointing
    if mode == "auto" and not setup.memory_shape.layers_rerun:
        mode = "off"

    def prediction(pack_tokens: int, checkpointing: recompute.Mode) -> memory.Prediction:
        return predict(setup, pack_tokens=pack_tokens, pairs=pairs, response_share=1.0, checkpointing=checkpointing)

    return memory.fit(
        prediction,
        device=setup.device,
        longest_group=max(pair.n_tokens for pair in pairs),
        pack_tokens=engine.pack_tokens,
        checkpointing=None if mode == "auto" else mode,
    )


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
    return memory.predict(
        setup.memory_shape,
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
