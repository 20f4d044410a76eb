"""However many processes make a run, and whatever they keep of it, it is the run of one.

In float64 on a tiny model, so that what rounding explains lies far below what an error would: every weight after 20
steps within 1e-9. In float32, as people train, the weights' distance within 1e-5 of their norm. The reference of all is
one cache; the child computes it with whatever processes come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from process_runs import TESTS, run
from stage_runs import write_model
from trimtab import store

ADAPTERS, WAYS = ("full", "lora"), ("dense", "screened", "aot", "kto", "odpo", "wpo")
CASES = [f"{adapter}-{way}" for adapter in ADAPTERS for way in WAYS]
SINGLE = [case for case in CASES if case.split("-")[1] in ("dense", "screened", "aot")]  # measured in float32
QUICK = ["full-screened", "lora-aot", "full-kto", "lora-odpo"]
CLOSE = 1e-9
CLOCK = {"seconds", "step_seconds", "tokens_per_second", "peak_memory_bytes"}
OF_PACKS = {"skipped_backward"}  # of a pack either all responses take a backward pass or none: packs are others


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the model, the caches, and every run of one process."""
    folder = tmp_path_factory.mktemp("processes")
    write_model(folder / "model")
    _train(folder, "alone", QUICK, size=1)
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    """The quick cases on two processes that divide nothing."""
    return _train(folder, "two", QUICK, size=2)


@pytest.fixture(scope="module")
def whole_folder(folder: Path) -> Path:
    """With all cases."""
    _train(folder, "alone", [case for case in CASES if case not in QUICK], size=1)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases of one process in float32."""
    folder = tmp_path_factory.mktemp("float32")
    write_model(folder / "model")
    _train(folder, "alone", SINGLE, size=1, precision="float32")
    return folder


def _train(
    folder: Path, name: str, cases: list[str], *, size: int, shard: str = "none", precision: str = "float64"
) -> Path:
    words = [str(TESTS / "process_child.py"), str(folder / name), precision, str(size), shard, *cases]
    result = run(words, size=size, home=folder / "home", limit=60.0 * len(cases))
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / name


def _weights(*runs: Path) -> list[dict[str, Tensor]]:
    """Of the newest checkpoint of each, which is that of step 20."""
    newest = [sorted((run / "checkpoints").glob("step-*"))[-1] for run in runs]
    assert {path.name for path in newest} == {"step-00000020"}
    weights = [load_file(path / "weights.safetensors") for path in newest]
    assert len({frozenset(tensors) for tensors in weights}) == 1, "the same tensors"
    return weights


def _apart(one: Path, other: Path) -> float:
    """Largest difference of two numbers of the weights."""
    a, b = _weights(one, other)
    assert all(tensor.itemsize == 8 for tensor in a.values()), "float64"
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def _distance(one: Path, other: Path) -> float:
    """‖a − b‖ / ‖a‖ over all weights."""
    a, b = _weights(one, other)
    assert all(tensor.itemsize == 4 for tensor in a.values()), "float32"
    norms = [sum(float(part.double().square().sum()) for part in parts) ** 0.5 for parts in (_gaps(a, b), a.values())]
    return norms[0] / norms[1]


def _gaps(a: dict[str, Tensor], b: dict[str, Tensor]) -> Iterator[Tensor]:
    return (a[name].double() - b[name].double() for name in a)


@pytest.mark.parametrize("shard", ["none", pytest.param("optimizer", marks=pytest.mark.slow), "gradients"])
def test_weights_are_those_of_one_process(shard: str, folder: Path, two: Path) -> None:
    runs = two if shard == "none" else _train(folder, f"quick-{shard}", QUICK, size=2, shard=shard)
    _compare(folder / "alone", runs, QUICK)
    assert _moved(folder / "alone" / "full-screened") > 1e-3, "the steps did something"
    rows = store.read_jsonl(runs / "full-screened" / "metrics.jsonl")
    assert sum(row["skipped_backward"] for row in rows) > 1, "something was skipped"


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", "optimizer", "gradients"])
@pytest.mark.parametrize("size", [2, 4])
def test_every_case_under_every_way_to_divide_it(size: int, shard: str, whole_folder: Path) -> None:
    runs = _train(whole_folder, f"{shard}-{size}", CASES, size=size, shard=shard)
    _compare(whole_folder / "alone", runs, CASES)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", "optimizer", "gradients"])
@pytest.mark.parametrize("size", [2, 4])
def test_every_case_in_float32(size: int, shard: str, single: Path) -> None:
    runs = _train(single, f"{shard}-{size}", SINGLE, size=size, shard=shard, precision="float32")
    distances = {case: _distance(single / "alone" / case, runs / case) for case in SINGLE}
    print(distances)
    assert max(distances.values()) <= 1e-5, distances
    _compare_metrics(single / "alone", runs, SINGLE, rounding=5e-5)


def test_the_same_number_of_processes_gives_the_same_bits(folder: Path, two: Path) -> None:
    again = _train(folder, "again", ["lora-aot"], size=2)
    assert _apart(two / "lora-aot", again / "lora-aot") == 0.0


def _compare(alone: Path, runs: Path, cases: list[str]) -> None:
    """Weights and metrics."""
    gaps = {case: _apart(alone / case, runs / case) for case in cases}
    assert max(gaps.values()) <= CLOSE, gaps
    _compare_metrics(alone, runs, cases)


def _compare_metrics(alone: Path, runs: Path, cases: list[str], *, rounding: float = 1e-6) -> None:
    """To four significant digits; `rounding`: what a difference of two log-probs may be off by that nearly cancel."""
    for case in cases:
        rows, others = (store.read_jsonl(folder / case / "metrics.jsonl") for folder in (alone, runs))
        for row, other in zip(rows, others, strict=True):
            for name in row.keys() - CLOCK - OF_PACKS:
                assert row[name] == pytest.approx(other[name], rel=1e-4, abs=rounding), (case, row["step"], name)


def _moved(run: Path) -> float:
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    before = load_file(run.parents[1] / "model" / "model.safetensors")
    after = load_file(newest / "weights.safetensors")
    return max(float((after[name] - before[name]).abs().max()) for name in after if name in before)
