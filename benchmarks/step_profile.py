"""Where the time of one optimizer step goes: by kind of work, with the speed of its products, page faults and peak.

    python benchmarks/step_profile.py --shape smollm2-135m [--lora] [--dtype mixed] [--pairs 4] [--rows 25]

Times are torch's profiler's (an operation's own, on the thread that calls it); the step is also timed without it. The
share of the ceiling is of the arithmetic that training needs (`Shape.training_operations`), not of what was computed.
"""

from __future__ import annotations

import argparse
import resource
from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import Any

from worker import matmul_speed, timed
from workload import LENGTHS, SHAPES, choose_fate, make_pairs

KINDS = {
    "attention kernels of torch": ("_scaled_dot_product", "_flash_attention"),
    "softmax, exponentials": ("softmax", "aten::exp", "aten::log", "aten::amax"),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::gather", "aten::scatter", "aten::clone"),
    "fills": ("aten::fill_", "aten::zero_"),
    "sums": ("aten::sum", "aten::mean", "aten::linalg_vector_norm"),
    "optimizer": ("aten::_fused_adamw", "aten::_foreach"),
    "elementwise": (
        "aten::mul", "aten::add", "aten::sub", "aten::div", "aten::neg", "aten::silu", "aten::pow", "aten::rsqrt",
        "aten::masked_fill", "aten::where", "aten::sigmoid", "aten::lerp", "aten::addc", "aten::sqrt", "aten::square",
    ),
}  # fmt: skip
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")


def main() -> None:
    arguments = _arguments()
    import torch
    from torch.profiler import ProfilerActivity, profile

    from step import Stepper

    torch.set_num_threads(arguments.threads)
    shape = SHAPES[arguments.shape]
    pairs = make_pairs(
        arguments.pairs, lengths=arguments.lengths, vocabulary=shape.vocabulary, completions=arguments.completions
    )
    stepper = Stepper(shape, lora=arguments.lora, dtype=arguments.dtype)
    pack_tokens = arguments.pack_tokens or stepper.pack_tokens(pairs)
    fate = choose_fate(pairs, rate=arguments.rate)

    def step() -> None:
        stepper.give_back()
        stepper.step(pairs, fate, pack_tokens=pack_tokens, screening=arguments.rate < 1)

    stepper.warm_up(pairs)
    step()
    seconds = []
    for _ in range(arguments.repeats):
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with timed() as took:
            step()
            answer = took()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        seconds.append(answer["seconds"])
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        step()
    ceiling = matmul_speed()
    operations = shape.training_operations(pairs, frozen=arguments.lora)
    best = min(seconds)
    adapter, times = "LoRA" if arguments.lora else "full", ", ".join(f"{s:.2f}" for s in seconds)
    print(f"{arguments.shape} {adapter}, {arguments.dtype}, {arguments.pairs} pairs ({arguments.lengths}), ", end="")
    print(f"packs of {pack_tokens} tokens, {arguments.threads} threads")
    print(f"seconds a step: {times}; peak {answer['peak'] / 1e9:.2f} GB; {faults:,} page faults")
    print(f"fastest product {ceiling / 1e9:.0f} GFLOP/s; ", end="")
    print(f"the step {operations / best / 1e9:.0f}, {operations / best / ceiling:.0%}\n")
    _print_kinds(profiler.key_averages(group_by_input_shape=True), arguments.rows)


def _print_kinds(events: Iterable[Any], rows: int) -> None:
    events = [event for event in events if event.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in events)
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for event in events:
        kind = kinds[_kind(event.key)]
        kind[0] += event.self_cpu_time_total
        kind[1] += _operations(event)
        kind[2] += event.count
    print("| kind of work | seconds | share | GFLOP/s | calls |\n|---|---|---|---|---|")
    for name, (micros, operations, calls) in sorted(kinds.items(), key=lambda item: -item[1][0]):
        speed = f"{operations / micros / 1e3:.0f}" if operations else ""
        print(f"| {name} | {micros / 1e6:.2f} | {micros / total:.1%} | {speed} | {calls} |")
    print("\n| operation | seconds | share | GFLOP/s | calls | shapes |\n|---|---|---|---|---|---|")
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:rows]:
        micros, operations = event.self_cpu_time_total, _operations(event)
        speed = f"{operations / micros / 1e3:.0f}" if operations else ""
        shapes = " ".join(map(str, [shape for shape in event.input_shapes if shape][:3]))
        print(f"| {event.key} | {micros / 1e6:.2f} | {micros / total:.1%} | {speed} | {event.count} | {shapes} |")


def _kind(name: str) -> str:
    if name in PRODUCTS:
        return "products"
    return next((kind for kind, names in KINDS.items() if any(name.startswith(n) or n in name for n in names)), "other")


def _operations(event: Any) -> float:
    """Floating-point operations of all calls of a product; 0 for anything else."""
    shapes = [shape for shape in event.input_shapes if shape]
    if event.key not in PRODUCTS or len(shapes) < 2:
        return 0.0
    first, second = shapes[1:3] if event.key in ("aten::addmm", "aten::baddbmm") else shapes[:2]
    columns = second[0] if event.key == "mkldnn::_linear_pointwise" else second[-1]
    return 2.0 * prod(first) * columns * event.count


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2-135m", choices=SHAPES)
    parser.add_argument("--lengths", default="ultrafeedback", choices=LENGTHS)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=("float32", "mixed"))
    parser.add_argument("--completions", type=int, default=2, help="a prompt: 4 are six pairs, ranked data")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1.0, help="share of response tokens that are active")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pack-tokens", type=int)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", type=int, default=25)
    return parser.parse_args()


if __name__ == "__main__":
    main()
