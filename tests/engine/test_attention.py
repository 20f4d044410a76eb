"""Attention over a pack against attention written out row by row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trimtab.engine import segmentwise
from trimtab.engine.attention import KeyValues, PackedAttentionError, Segments, Way, packed_attention, why_no_gradient
from trimtab.engine.flex import Flex
from trimtab.engine.segments import AttentionOptions
from trimtab.engine.segmentwise import AttentionCalls, Segmentwise
from trimtab.engine.trie import Branch
from trimtab.engine.varlen import FlashAttention, TorchVarlen

A, KV, D = 4, 2, 8
Plain = tuple[int, tuple[int, ...]]


def _branches(groups: list[Plain]) -> list[Branch]:
    """Prompt and first response in one, every further response behind the prompt."""
    branches: list[Branch] = []
    for prompt, (first, *others) in groups:
        opening = len(branches)
        branches += [Branch(prompt + first), *(Branch(n, opening, prompt) for n in others)]
    return branches


def _visible(branches: list[Branch]) -> list[list[int]]:
    """Of each row, the rows that it sees, in the order of its sequence: from the definition, row by row."""
    rows: list[list[int]] = []
    seen: list[list[int]] = []
    for branch in branches:
        before = [] if branch.parent is None else seen[rows[branch.parent][branch.n_shared - 1]]
        rows.append(list(range(len(seen), len(seen) + branch.n_rows)))
        for row in rows[-1]:
            before = [*before, row]
            seen.append(before)
    return seen


def _by_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    branches: list[Branch],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """[1, T, A, D] one row and head at a time, from the definition."""
    out = torch.zeros(1, q.shape[2], A, D)
    for row, rows in enumerate(_visible(branches)):
        visible = rows if window is None else rows[-window:]
        for head in range(A):
            scores = k[0, head // (A // KV), visible] @ q[0, head, row] * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat([scores, sinks[head : head + 1]])
            weights = scores.softmax(0)[: len(visible)]
            out[0, row, head] = weights @ v[0, head // (A // KV), visible]
    return out


def _tensors(branches: list[Branch], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    T = sum(branch.n_rows for branch in branches)
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, heads, T, D, generator=generator) * 2 for heads in (A, KV, KV))  # type: ignore[return-value]


def _layout(branches: list[Branch], **options: Any) -> Segments:
    return Segments(branches, device="cpu", **options)


def _ours(q: Tensor, k: Tensor, v: Tensor, branches: list[Branch], **arguments: object) -> Tensor:
    out, weights = packed_attention(nn.Module(), q, k, v, None, segments=_layout(branches), scaling=0.3, **arguments)
    assert weights is None
    return out


@st.composite
def trees(draw: st.DrawFn) -> list[Branch]:
    """Branches that begin anew, or anywhere in an earlier one."""
    branches: list[Branch] = []
    for _ in range(draw(st.integers(1, 9))):
        parent = draw(st.none() | st.integers(0, len(branches) - 1)) if branches else None
        n_shared = 0 if parent is None else draw(st.integers(1, branches[parent].n_rows))
        branches.append(Branch(draw(st.integers(1, 12)), parent, n_shared))
    return branches


@settings(max_examples=25, deadline=None)
@given(
    trees(),
    st.sampled_from([0, 14, 112]),
    st.sampled_from([None, 1, 5]),
    st.sampled_from([None, 1.5]),
    st.booleans(),
)
def test_any_layout_equals_the_definition(
    branches: list[Branch], short: int, window: int | None, softcap: float | None, sink: bool
) -> None:
    q, k, v = _tensors(branches)
    sinks = torch.linspace(-1, 1, A) if sink else None
    truth = _by_rows(q, k, v, branches, scale=0.3, window=window, softcap=softcap, sinks=sinks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentwise, "SHORT", short)  # all trees long, some, none
        ours = _ours(q, k, v, branches, sliding_window=window, softcap=softcap, s_aux=sinks)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)


def test_gradients_do_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    branches = [*_branches([(9, (4, 7)), (3, (20,)), (15, (2, 3, 4)), (6, (5, 5))]), Branch(3, 1, 2), Branch(2, 6, 1)]
    upstream = torch.randn(1, sum(branch.n_rows for branch in branches), A, D)
    results = []
    for short in (0, 25, 1000):
        monkeypatch.setattr(segmentwise, "SHORT", short)
        leaves = [x.requires_grad_() for x in _tensors(branches)]
        _ours(*leaves, branches, sliding_window=6).backward(upstream)
        results.append([leaf.grad for leaf in leaves])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_many_short_groups_are_one_call() -> None:
    groups: list[Plain] = [(20 + i % 6, (18 + i % 5, 20)) for i in range(32)]
    assert len(AttentionCalls(_layout(_branches(groups))).calls) == 1
    # behind one system prompt too: itself with the first group's first response, and all others
    behind = [Branch(60), *(Branch(18 + i % 5, 0, 30) for i in range(32))]
    assert len(AttentionCalls(_layout(behind)).calls) == 2


def test_padding_in_a_call_is_bounded() -> None:
    groups: list[Plain] = [(n, (n, n)) for n in (1, 2, 4, 8, 16, 32)]
    for call in AttentionCalls(_layout(_branches(groups))).calls:
        lengths = [len(set(rows)) for rows in call.asks.row_BL.tolist()]
        assert min(lengths) >= 0.7 * max(lengths)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"position_bias": torch.zeros(1)}, "position bias"),
        ({"is_causal": False}, "not causal"),
        ({"segments": None}, "segment layout"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(arguments: dict[str, object], name: str) -> None:
    branches = _branches([(3, (2, 2))])
    q, k, v = _tensors(branches)
    with pytest.raises(PackedAttentionError, match=name):
        packed_attention(nn.Module(), q, k, v, None, **{"segments": _layout(branches), **arguments})
    with pytest.raises(PackedAttentionError, match="mask of its own"):
        packed_attention(nn.Module(), q, k, v, torch.ones(1), segments=_layout(branches))


def _varlen_by_contract(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    softcap: float = 0.0,
) -> Tensor:
    """What torch documents for varlen_attn, sequence by sequence: lower-right causal, a window of (left, 0)."""
    out = []
    assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    assert enable_gqa == (q.shape[1] != k.shape[1])
    for n in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[n], cu_q[n + 1]), slice(cu_k[n], cu_k[n + 1])
        n_rows, n_keys = len(q[rows]), len(k[keys])
        distance = torch.arange(n_keys - n_rows, n_keys)[:, None] - torch.arange(n_keys)[None, :]
        seen = (distance >= 0) & ((distance <= window_size[0]) | (window_size[0] < 0))
        one_q, one_k, one_v = (x.transpose(0, 1) for x in (q[rows], k[keys], v[keys]))
        one_k, one_v = (x.repeat_interleave(q.shape[1] // k.shape[1], 0) for x in (one_k, one_v))
        scores = one_q @ one_k.transpose(1, 2) * scale
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        out.append((scores.masked_fill(~seen, float("-inf")).softmax(-1) @ one_v).transpose(0, 1))
    return torch.cat(out)


def _flash_by_contract(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
) -> Tensor:
    """What flash-attn documents for flash_attn_varlen_func, its arguments in their order."""
    assert causal
    assert dropout_p == 0.0
    assert alibi_slopes is None
    assert not deterministic
    assert softmax_scale is not None
    return _varlen_by_contract(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
        scale=softmax_scale, window_size=window_size, enable_gqa=q.shape[1] != k.shape[1], softcap=softcap,
    )  # fmt: skip


@pytest.fixture(params=["flash-attn", "torch varlen_attn", "FlexAttention"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """The CUDA ways on a CPU: FlexAttention itself, uncompiled; of the others all but the kernels, which have no CPU
    form and are stood in for by what their documentation says."""
    monkeypatch.setattr(FlashAttention, "_kernel", lambda _: _flash_by_contract)
    monkeypatch.setattr(TorchVarlen, "_kernel", lambda _: _varlen_by_contract)
    ways: tuple[Way, ...] = (FlashAttention(), TorchVarlen(), Flex())
    return next(one for one in ways if one.name == request.param)


MIXED = [*_branches([(9, (4, 7)), (3, (20,)), (15, (2, 3, 4)), (1, (5, 5))]), Branch(4, 1, 3), Branch(2, 8, 4)]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_every_way_computes_the_definition_or_says_that_it_cannot(
    way: Way, window: int | None, softcap: float | None
) -> None:
    q, k, v = _tensors(MIXED)
    asked = AttentionOptions(0.3, window, softcap)
    if way.can(q, v, asked):
        with torch.no_grad():
            ours = way.attend(_layout(MIXED), q, k, v, asked)
        truth = _by_rows(q, k, v, MIXED, scale=0.3, window=window, softcap=softcap)
        torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)
    else:
        assert softcap is not None
        assert way.name == "torch varlen_attn"
    assert not way.can(q, v, AttentionOptions(0.3, sinks_A=torch.zeros(A)))


def test_what_a_way_cannot_goes_to_the_next() -> None:
    asked: list[float | None] = []

    class Plainly(Segmentwise):
        def can(self, *rows_then_asked: Any) -> bool:
            asked.append(rows_then_asked[-1].softcap)
            return asked[-1] is None

        def attend(self, *_: Any) -> Tensor:
            return torch.zeros(1, sum(branch.n_rows for branch in MIXED), A, D)

    q, k, v = _tensors(MIXED)
    for softcap, nothing in ((None, True), (2.0, False)):
        layout = _layout(MIXED, ways=(Plainly(), Segmentwise()))
        out, _ = packed_attention(nn.Module(), q, k, v, None, segments=layout, softcap=softcap)
        assert bool((out == 0).all()) is nothing
    assert asked == [None, 2.0]


HEADS = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, hidden_size=32)


def test_a_way_must_have_a_gradient_and_the_right_one() -> None:
    class Broken(Segmentwise):
        def attend(self, *_: Any) -> Tensor:
            raise RuntimeError("no kernel image\nfor this device")

    class Slanted(Segmentwise):
        def attend(
            self, segments: Segments, query: Tensor, key: Tensor, value: Tensor, asked: AttentionOptions
        ) -> Tensor:
            return super().attend(segments, query, key.detach() * 0.9 + key * 0.1, value, asked)

    def why(one: Way) -> str:
        return why_no_gradient(one, HEADS, device=torch.device("cpu"), dtype=torch.float32)

    assert why(Segmentwise()) == ""
    assert why(Broken()) == "no kernel image"
    assert why(Slanted()).startswith("its gradients are off by 9.0e-01")


def _split(
    branches: list[Branch],
    n_first: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ways: tuple[Way, ...] = (),
    **arguments: object,
) -> tuple[Tensor, Tensor]:
    """The first branches in one pack, all others behind it: (outputs, the same by definition)."""
    first, tail = branches[:n_first], branches[n_first:]
    n_rows = sum(branch.n_rows for branch in first)
    names = {"sliding_window": arguments.get("window"), "softcap": arguments.get("softcap")}
    layout = Segments(first, device="cpu", ways=ways)
    kept = layout.keeping = KeyValues(first)
    first_out, _ = packed_attention(
        nn.Module(), *(x[:, :, :n_rows] for x in (q, k, v)), None, segments=layout, scaling=0.3, **names
    )
    behind = Segments(tail, device="cpu", behind=kept, ways=ways)
    other_out, _ = packed_attention(
        nn.Module(), *(x[:, :, n_rows:] for x in (q, k, v)), None, segments=behind, scaling=0.3, **names
    )
    return torch.cat([first_out, other_out], 1), _by_rows(q, k, v, branches, scale=0.3, **arguments)  # type: ignore[arg-type]


TAILS = [
    *(Branch(13), Branch(23), Branch(17), Branch(6), Branch(36), Branch(5, 0, 11)),  # the earlier pack
    *(Branch(7, 0, 9), Branch(3, 2, 15), Branch(4, 2, 15), Branch(5, 3, 1), Branch(1, 4, 6)),
    *(Branch(4, 5, 2), Branch(2, 11, 3), Branch(3, 7, 2), Branch(8)),
]


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("short", [0, 25, 1000])
def test_responses_behind_an_earlier_pack_see_what_they_continue_and_nothing_else(
    window: int | None, softcap: float | None, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentwise, "SHORT", short)
    ours, truth = _split(TAILS, 6, *_tensors(TAILS), window=window, softcap=softcap)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_responses_behind_an_earlier_pack_in_every_way(way: Way) -> None:
    ours, truth = _split(TAILS, 6, *_tensors(TAILS), ways=(way,), window=5)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)
