"""The table of docs/scaling.md, by arithmetic from the assumptions that it names. No GPU has been measured.

    python benchmarks/scaling.py        rewrites the table in docs/scaling.md

A pair costs the operations that `workload.Shape.training_operations` counts; the imbalance is that of dealing the pairs
of a batch; bytes are those of `trimtab.engine.communication`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab.engine.communication import seconds_a_step, sent_bytes
from trimtab.engine.processes import deal
from workload import SHAPES, Shape, make_pairs

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
MARK = "<!-- benchmarks/scaling.py -->"
BATCH = 64  # pairs
SIZES = {"smollm2-135m": ".135B", "qwen2.5-0.5b": ".5B", "qwen2.5-1.5b": "1.5B", "qwen2.5-3b": "3B"}


@dataclass(frozen=True)
class Assumption:
    """A GPU's product speed in bfloat16 (operations a second, its data sheet's), the share of it that a step reaches,
    and bytes a second that one sends within a host and from host to host: four fifths of 300 GB/s (NVLink 3) and of 25
    GB/s (200 Gbit/s a host)."""

    products: float = 312e12
    share: float = 0.4
    within_host: float = 0.8 * 300e9
    between_hosts: float = 0.8 * 25e9
    gpus_a_host: int = 8


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition(MARK)[2]
    table = "\n".join(_table(Assumption()))
    PAGE.write_text(f"{before}{MARK}\n{table}\n{MARK}{after}", encoding="utf-8")


def _table(assumption: Assumption) -> list[str]:
    counts = (1, 2, 4, 8, 16, 32)
    names = ["1 GPU", "2", "4", "8", "2 nodes", "4 nodes"]
    lines = [
        f"Pairs a second, and the share of what as many single GPUs would do. Batches of {BATCH} pairs; each GPU does "
        f"{assumption.share:.0%} of {assumption.products / 1e12:.0f} · 10¹² operations a second.",
        "",
        f"| model | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for shape_name, size_name in SIZES.items():
        shape = SHAPES[shape_name]
        steps = [_seconds(shape, count, assumption) for count in counts]
        cells = [
            f"{BATCH / step:.1f} ({steps[0] / step / count:.0%})" for step, count in zip(steps, counts, strict=True)
        ]
        lines.append(f"| {size_name} | {' | '.join(cells)} |")
    return lines


def _seconds(shape: Shape, count: int, assumption: Assumption) -> float:
    """Of one step on `count` GPUs, full fine-tuning, bfloat16 weights whose gradients are summed in fp32."""
    pairs = make_pairs(BATCH, lengths="ultrafeedback", vocabulary=shape.vocabulary)
    costs = [shape.training_operations([pair]) for pair in pairs]
    loads = [sum(costs[n] for n in own) for own in deal(costs, count)]
    traffic = sent_bytes("none", gradients=4 * shape.parameters, weights=2 * shape.parameters, size=count)
    link = assumption.within_host if count <= assumption.gpus_a_host else assumption.between_hosts
    imbalance = max(loads) * count / sum(loads) - 1
    compute = sum(costs) / (assumption.share * assumption.products)
    return seconds_a_step(compute=compute, imbalance=imbalance, traffic=traffic, link=link, size=count)


if __name__ == "__main__":
    main()
