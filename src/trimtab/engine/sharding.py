"""What each process keeps of a model that all of them train, by torch's own engines.

    none       all of it: gradients are summed by one all-reduce
    optimizer  the moments (and fp32 copies) of some parameters: `ZeroRedundancyOptimizer`
    gradients  a slice of each parameter with its moments, and between steps of its gradient: FSDP2's `fully_shard`

Under FSDP2 the weights are whole while a batch is computed, and no hook of it is on the way: it manages the model from
a root around it that nobody calls. Gradients add up where the engine writes them. Then one empty pass through that root
carries the reduce-scatter, the slices are stepped, and the weights are gathered for the next batch. So a process sends
as much a step whatever it computed, screened or left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer

from trimtab.engine.processes import Processes


class _Root(nn.Module):
    """Manages a model's parameters; its own pass computes nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


class Slices:
    """The trainable parameters of a model in slices along their first dimension, one a process.

    `own`: this process's, by name; tensors that share memory with what is gathered.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        frozen = {parameter for parameter in model.parameters() if not parameter.requires_grad}
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._device, self._processes = trainable[0].device, processes
        mesh = init_device_mesh(self._device.type, (processes.size,))
        root = fully_shard(_Root(model), mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
        assert isinstance(root, FSDPModule)
        root.set_requires_gradient_sync(False)
        root.set_reshard_after_backward(False)
        root.set_gradient_divide_factor(1.0)
        root.set_force_sum_reduction_for_comms(True)  # without it gloo is asked for a product that it does not have
        self._root: Any = root
        self._sharded: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.own = {name: parameter.to_local().detach() for name, parameter in self._sharded.items()}
        root.unshard()
        for module in model.modules():  # asked for its weights, a managed model falls back to slices and stays there
            for number, hook in list(module._state_dict_pre_hooks.items()):
                if hook.__module__.startswith("torch.distributed.fsdp"):
                    del module._state_dict_pre_hooks[number]

    def reduce(self) -> None:
        """Each process gets the sum of its slices of all gradients, as `.grad` of `own`."""
        self._root.set_requires_gradient_sync(True)
        self._root(torch.zeros((), device=self._device, requires_grad=True)).backward()
        self._root.set_requires_gradient_sync(False)
        for name, parameter in self._sharded.items():
            self.own[name].grad = parameter.grad.to_local()
            parameter.grad = None

    def gather(self) -> None:
        """The whole weights are those of the slices again."""
        self._root.reshard()
        self._root.unshard()

    def norm(self, own: Tensor) -> Tensor:
        """The 2-norm of all from that of this process's slices."""
        squares = own.double().square().cpu()
        self._processes.sum_into([squares])
        return squares.sqrt().to(own)

    def part(self, whole: Tensor) -> Tensor:
        """This process's slice of a tensor."""
        slices = torch.chunk(whole, self._processes.size)
        rank = self._processes.rank
        return slices[rank] if rank < len(slices) else whole[:0]


def sharded_optimizer(groups: list[dict[str, Any]], **options: Any) -> ZeroRedundancyOptimizer:
    """torch's AdamW, each process with the moments of some of the parameters; all get what was stepped."""
    return ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, **options)
