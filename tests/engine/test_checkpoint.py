"""A checkpoint holds all that the next step depends on, and a damaged or foreign one is never taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trimtab import store
from trimtab.engine import checkpoint
from trimtab.engine.optim import AdamW
from trimtab.errors import ConfigError, StoreError

IDENTITY = {"objective.beta": 0.1, "data": "a" * 64}


def net(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 4)).to(dtype)


def train(model: nn.Module, optimizer: AdamW, steps: range) -> list[float]:
    """Steps whose dropout comes from torch's generator; the losses."""
    losses = []
    for step in steps:
        x = torch.arange(4.0).add(step).to(next(model.parameters()).dtype)
        optimizer.zero_gradients()
        loss = model(x).float().square().mean()
        loss.backward()
        optimizer.clip(1.0)
        optimizer.step(learning_rate=1e-2 / (step + 1))
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kill", range(1, 6))
def test_resumed_is_bit_identical_to_uninterrupted(tmp_path: Path, kill: int, dtype: torch.dtype) -> None:
    straight = net(dtype=dtype)
    one = AdamW(straight, weight_decay=0.1)
    torch.manual_seed(1)
    losses = train(straight, one, range(6))

    first = net(dtype=dtype)
    two = AdamW(first, weight_decay=0.1)
    torch.manual_seed(1)
    before = train(first, two, range(kill))
    checkpoint.save(tmp_path, step=kill, optimizer=two, identity=IDENTITY, extra={"pack_tokens": 64})

    second = net(seed=99, dtype=dtype)
    three = AdamW(second, weight_decay=0.1)
    torch.manual_seed(7)
    found, problems = checkpoint.find(tmp_path, identity=IDENTITY)
    assert found is not None
    assert (found.step, found.extra, problems) == (kill, {"pack_tokens": 64}, [])
    checkpoint.load(found, three)
    after = train(second, three, range(kill, 6))

    assert before + after == losses
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))
    assert one.state().keys() == three.state().keys()
    assert all(torch.equal(value, three.state()[name]) for name, value in one.state().items())


def saved(parent: Path, *steps: int) -> AdamW:
    model = net()
    optimizer = AdamW(model, weight_decay=0.1)
    for step in steps:
        train(model, optimizer, range(1))
        checkpoint.save(parent, step=step, optimizer=optimizer, identity=IDENTITY, extra={})
    return optimizer


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path / "checkpoints", identity=IDENTITY) == (None, [])


def test_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 10)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["delete", "truncate", "flip", "zero"])
def test_a_damaged_one_is_passed_over_and_named(tmp_path: Path, name: str, harm: str) -> None:
    saved(tmp_path, 1, 2)
    file = tmp_path / "step-00000002" / name
    content = bytearray(file.read_bytes())
    if harm == "delete":
        file.unlink()
    else:
        if harm == "truncate":
            content = content[:-1]
        elif harm == "flip":
            content[len(content) // 2] ^= 1
        else:
            content = bytearray(len(content))
        file.write_bytes(content)
    found, problems = checkpoint.find(tmp_path, identity=IDENTITY)
    assert found is not None
    assert found.step == 1
    assert len(problems) == 1
    assert f"step-00000002/{name}" in problems[0]


def test_a_killed_save_is_not_a_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / ".tmp-1-step-00000002").mkdir()
    (tmp_path / "step-00000003").mkdir()  # no manifest: not committed
    found, problems = checkpoint.find(tmp_path, identity=IDENTITY)
    assert found is not None
    assert found.step == 1
    assert "step-00000003" in problems[0]


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ({"objective.beta": 0.3, "data": "a" * 64}, "objective.beta was 0.1 and is 0.3"),
        ({"objective.beta": 0.1, "data": "b" * 64}, "data was aaaaaaaaaaaa… and is bbbbbbbbbbbb…"),
        ({"objective.beta": 0.1}, "data was aaaaaaaaaaaa… and is not set"),
        ({**IDENTITY, "objective.margin": 2.0}, "objective.margin was not set and is 2.0"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path: Path, identity: dict[str, Any], told: str) -> None:
    saved(tmp_path, 1)
    with pytest.raises(ConfigError) as caught:
        checkpoint.find(tmp_path, identity=identity)
    assert told in caught.value.message
    assert "--out" in caught.value.remedy


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    found, _ = checkpoint.find(tmp_path, identity=IDENTITY)
    assert found is not None
    with pytest.raises(StoreError, match=r"0\.bias"):
        checkpoint.load(found, AdamW(nn.Linear(4, 8), weight_decay=0.0))


def test_no_pickle_and_little_else(tmp_path: Path) -> None:
    optimizer = saved(tmp_path, 1)
    folder = tmp_path / "step-00000001"
    assert sorted(file.name for file in folder.iterdir()) == [
        "manifest.json",
        "optimizer.safetensors",
        "rng.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    total = sum(file.stat().st_size for file in folder.iterdir())
    assert total <= checkpoint.bytes_needed(optimizer)
    assert store.damage(folder) == []
