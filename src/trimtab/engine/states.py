"""What a pack's forward pass leaves for the head, and for responses behind the same prompts.

Dims: T rows of the pack, N targets, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trimtab.engine.segments import KeyValues


@dataclass(frozen=True, slots=True)
class States:
    """A pack's forward pass up to the head: [N, H], one row a target (logits [N, V] under `OwnLogits`); N targets.

    `prompt_states`, if asked for: what responses can be computed behind, see `Scorer.states_behind`.
    """

    hidden_NH: Tensor
    targets_N: Tensor
    prompt_states: PromptStates | None = None


@dataclass(frozen=True, slots=True)
class PromptStates:
    """A pack whose prompts are still there: keys and values of each layer, and the last hidden states [T, H].

    With gradients enabled they are part of the pack's graph: responses behind them can be learnt from too.
    """

    key_values: KeyValues
    hidden_TH: Tensor
