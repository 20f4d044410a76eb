"""Layers that run again: the same gradient, less kept; and the embedding's gradient without a buffer of its size."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from trimtab import objectives
from trimtab.engine import gradient, recompute, trainable
from trimtab.engine.packing import Group, lay_out
from trimtab.engine.scoring import Scorer
from trimtab.errors import ModelError
from trimtab.records import TokenPair


def qwen(seed: int = 0, **settings: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    shape = {
        "vocab_size": 200, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.1,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**(shape | settings)))


def token_pairs(n: int = 3) -> list[TokenPair]:
    numbers = random.Random(0)  # noqa: S311  # test data

    def ids(length: int) -> tuple[int, ...]:
        return tuple(numbers.randrange(2, 200) for _ in range(length))

    return [TokenPair(f"p{i}", ids(60), ids(90 + i), ids(70)) for i in range(n)]


def gradients(model: Any, mode: recompute.Mode, pairs: Sequence[TokenPair], *, lean: bool = False) -> dict[str, Any]:
    scorer = Scorer(model, checkpointing=mode)
    recompute.switch(trainable.causal_lm_of(model), mode)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    if lean:
        trainable.lean_embedding(model)
    gradient.accumulate(
        scorer, pairs, objective=objectives.make("dpo"), reference_logps_R=torch.zeros(2 * len(pairs)), pack_tokens=300
    )
    assert scorer.layout == "packed"
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["selective", "on"])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_layer_that_runs_again_gives_the_same_gradient(mode: recompute.Mode, adapter: bool) -> None:
    pairs = token_pairs()
    model = trainable.attach_lora(qwen(), rank=4, alpha=8.0) if adapter else qwen()
    plain = {name: grad.clone() for name, grad in gradients(model, "off", pairs).items()}
    again = gradients(model, mode, pairs)
    assert plain.keys() == again.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-6, atol=1e-8, msg=name)


class _Redone(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def _counted(mode: recompute.Mode) -> dict[str, int]:
    model = qwen()
    pairs = token_pairs(1)
    gradients(model, mode, pairs)
    with _Redone() as seen:
        gradients(model, mode, pairs)
    return seen.counts


def test_selective_redoes_elementwise_work_and_no_product_or_attention() -> None:
    off, selective, on = (_counted(mode) for mode in recompute.MODES)

    def redone(counts: dict[str, int], names: Iterable[str]) -> int:
        return sum(counts.get(name, 0) - off.get(name, 0) for name in names)

    layers = 3
    assert redone(selective, ["aten::silu.out"]) == redone(on, ["aten::silu.out"]) == layers
    assert redone(selective, recompute._ATTENTION) == 0
    assert redone(on, recompute._ATTENTION) == 2 * layers  # prompt with its first response, and the second
    assert redone(selective, recompute._PRODUCTS) == 0
    assert redone(on, recompute._PRODUCTS) >= 6 * layers


def test_products_are_kept_by_their_inner_width() -> None:
    keep, redo = recompute.CheckpointPolicy.MUST_SAVE, recompute.CheckpointPolicy.PREFER_RECOMPUTE
    a, b = torch.zeros(5, recompute.NARROW + 1), torch.zeros(5, recompute.NARROW)
    assert recompute._checkpoint_policy(None, torch.ops.aten.mm.default, a, a.T) is keep
    assert recompute._checkpoint_policy(None, torch.ops.aten.mm.default, b, b.T) is redo
    assert recompute._checkpoint_policy(None, torch.ops.aten.addmm.default, torch.zeros(5), a, a.T) is keep
    assert recompute._checkpoint_policy(None, torch.ops.aten.silu.default, a) is redo


def test_less_is_kept() -> None:
    """Bytes that autograd holds between the passes, counted by its own hooks: off > selective > on."""
    sizes = []
    for mode in recompute.MODES:
        model = qwen(num_hidden_layers=6)
        scorer = Scorer(model, checkpointing=mode)
        recompute.switch(model, mode)
        groups = [Group.of_pair(token_pairs(1)[0], 0)]
        scorer.prepare(groups)
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with scorer.attention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = scorer.states(lay_out(groups))
        sizes.append(sum(held.values()))
        del states
    assert sizes[2] < sizes[0] / 4, sizes
    # `selective` keeps its products outside autograd: told by `test_selective_redoes_elementwise_work`
    assert sizes[1] < sizes[0] / 4, sizes


def test_an_architecture_without_such_layers_is_refused_by_name() -> None:
    assert not recompute.possible(nn.Linear(2, 2))
    assert recompute.possible(qwen())
    with pytest.raises(ModelError, match="Linear does not support"):
        recompute.switch(nn.Linear(2, 2), "on")
    assert recompute.switch(nn.Linear(2, 2), "off") == ()


def test_switching_off_again() -> None:
    model = qwen()
    assert len(recompute.switch(model, "on")) == 3
    recompute.switch(model, "off")
    assert not any(getattr(layer, "gradient_checkpointing", False) for layer in recompute._layers(model))


@pytest.mark.parametrize("tied", [True, False])
def test_the_lean_embedding_gives_the_same_gradient(tied: bool) -> None:
    pairs = token_pairs()
    pairs = [replace(pair, rejected_ids=(7,) * 40) for pair in pairs]  # one token many times
    plain = gradients(qwen(tie_word_embeddings=tied), "off", pairs)
    lean = gradients(qwen(tie_word_embeddings=tied), "off", pairs, lean=True)
    name = "model.embed_tokens.weight"
    assert not lean[name].is_sparse
    for key, grad in plain.items():
        rounding = 1e-6 * float(grad.abs().max())  # sums in another order, which depends on the processor
        torch.testing.assert_close(lean[key], grad, rtol=1e-5, atol=rounding, msg=key)


def test_the_lean_embedding_joins_a_tied_head_that_autograd_computes() -> None:
    """Both parts of a tied weight's gradient come through autograd where the head is no plain linear module."""
    ids = torch.tensor([[3, 4, 4, 9]])
    found = []
    for lean in (False, True):
        model = qwen()
        model.model.embed_tokens.weight.grad = torch.zeros(200, 128)
        if lean:
            trainable.lean_embedding(model)
        model(ids).logits.square().mean().backward()
        found.append(model.model.embed_tokens.weight.grad)
    assert not found[1].is_sparse
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-8)


class Scaled(nn.Embedding):
    """As Gemma's: a subclass that scales what it looks up."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * 3.0


class Net(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = Scaled(20, 4, **options)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed


@pytest.mark.parametrize(
    ("options", "sparse"),
    [({}, True), ({"padding_idx": 3}, True), ({"max_norm": 1.0}, False), ({"scale_grad_by_freq": True}, False)],
)
def test_padding_scaling_and_the_options_that_exclude_it(options: dict[str, Any], sparse: bool) -> None:
    plain, lean = Net(**options), Net(**options)
    trainable.lean_embedding(lean)
    assert lean.embed.sparse is sparse
    ids, upstream = torch.tensor([1, 3, 3, 5, 5, 5]), torch.arange(24.0).view(6, 4)
    for net in (plain, lean):
        net.embed.weight.grad = torch.ones(20, 4)
        net.embed(ids).backward(upstream)
    assert plain.embed.weight.grad is not None
    torch.testing.assert_close(lean.embed.weight.grad, plain.embed.weight.grad)
    assert (lean.embed.weight.grad[3] == 1).all() == (options.get("padding_idx") == 3)


def test_frozen_embeddings_learn_nothing_and_an_untied_head_still_does() -> None:
    pairs = token_pairs(1)
    for tied in (True, False):
        model = qwen(tie_word_embeddings=tied)
        trainable.freeze_embeddings(model)
        trainable.lean_embedding(model)
        assert not model.get_input_embeddings().sparse
        found = gradients(model, "off", pairs)
        assert "model.embed_tokens.weight" not in found
        assert ("lm_head.weight" in found) is not tied
        assert found["model.layers.0.mlp.up_proj.weight"].any()
