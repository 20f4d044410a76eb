"""How weights lie in memory, for products with few rows.

A linear layer multiplies by its weight's transpose. With the tens of rows of a decoding step the time goes into reading
the weight, and both CPU libraries read it faster when the transpose is what lies in memory: `LOG.md` has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def lay_for_decoding(model: Any) -> None:
    """Store the matrices of fp32 linear layers on a CPU column by column, for good; shapes and values stay.

    Each is copied once, one at a time. A head that is tied to the embedding stays tied.
    """
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32:
            module.weight.data = module.weight.data.T.contiguous().T
