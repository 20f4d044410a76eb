"""Training seconds to a held-out accuracy on real weights and real pairs, beside TRL 1.16 on one machine.

    .venv/bin/python benchmarks/time_to_accuracy.py --peer-python .venv-bench/bin/python \\
        --model SMOLLM2_FOLDER --train train.jsonl --held-out held-out.jsonl --rate 1e-3

DPO, β = .1, one epoch, on both sides: ours with LoRA at `--rate` (and the hinge of APO-zero, whose answers to zero
gradients cost nothing), TRL's with the same LoRA at the same rate, and with TRL's own defaults (all weights, 1e-6).
The same token ids and batches of 8, both sides in fp32; TRL pair by pair without checkpointing, its fastest way in fp32
on a CPU, with its reference precomputed. Seconds are those of the reference of the training pairs and of the optimizer
steps. The accuracy is that of the weights after some steps on the held-out pairs, by our scorer for both sides, outside
the timed part, and so is our reference of those pairs. Writes `time-to-accuracy-MACHINE.json` and TIME_TO_ACCURACY.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import time_to_accuracy_table

HERE = Path(__file__).parent
BATCH = 8
TRL_RATE = 1e-6  # the default of DPOConfig 1.16
OURS = ("dpo", "apo_hinge_zero")


def main() -> None:
    told = _arguments()
    told.out.mkdir(parents=True, exist_ok=True)
    began, commit = datetime.now(UTC), machine.commit()
    file = told.out / f"time-to-accuracy-{machine.kind()}.json"
    runs: list[dict[str, Any]] = []

    def keep(run: dict[str, Any]) -> None:
        runs.append(run)
        about = machine.about("time_to_accuracy.py", began, commit, threads=told.threads, peer=told.peer_python)
        results = {"about": about, "rate": told.rate, "batch": BATCH, "runs": runs}
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        time_to_accuracy_table.write(told.out)
        print(json.dumps(run["looks"]), flush=True)

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for objective in OURS:
            keep(_ours(told, objective, work / objective))
        ours, steps = work / OURS[0], [look["step"] for look in runs[0]["looks"]]
        ids = _ids(ours, work / "ids.json")
        for lora, rate in ((True, told.rate), (False, TRL_RATE)) if told.defaults else ((True, told.rate),):
            out = work / f"trl-{rate:g}"
            keep(_trl(told, out, ids=ids, looks=steps, rate=rate, lora=lora, ours=ours))


def _ours(told: argparse.Namespace, objective: str, out: Path) -> dict[str, Any]:
    words = [
        "--model", str(told.model), "--data", str(told.train),
        "--objective", objective, "--beta", "0.1", "--adapter", "lora", "--train.epochs", "1",
        "--train.batch-pairs", str(BATCH), "--train.learning-rate", str(told.rate), "--train.schedule", "linear",
        "--train.warmup", "0", "--engine.threads", str(told.threads), "--engine.dtype", "float32",
        "--benchmark", "none", "--judge", "none", "--offline",
    ]  # fmt: skip
    environment = machine.environment(told.threads) | {"TRIMTAB_HOME": str(out.with_name(f"{out.name}-home"))}
    alone = [*words, "--data.holdout", "0", "--out", str(out.with_name(f"{out.name}-training-pairs"))]
    reference = _json_of([sys.executable, str(HERE / "reference_run.py"), *alone], environment)["reference"]
    rest = ["--data.eval", str(told.held_out), "--select.by", "last", "--out", str(out)]
    subprocess.run(
        [sys.executable, "-m", "trimtab", "run", *words, *rest],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    trained = {row["step"]: row["seconds"] for row in _rows(out / "metrics.jsonl")}
    looks = [
        {"step": look["step"], "seconds": trained[look["step"]], **look["accuracy"]}
        for look in json.loads((out / "selection.json").read_text(encoding="utf-8"))["milestones"]
    ]
    return _run("trimtab", objective, lora=True, rate=told.rate, reference=reference, looks=looks)


def _trl(
    told: argparse.Namespace, out: Path, *, ids: Path, looks: list[int], rate: float, lora: bool, ours: Path
) -> dict[str, Any]:
    words = [
        "--model", str(told.model), "--ids", str(ids), "--out", str(out), "--rate", str(rate), "--batch", str(BATCH),
        "--threads", str(told.threads), *(["--lora"] if lora else []), "--looks", *map(str, looks),
    ]  # fmt: skip
    took = _json_of([told.peer_python, str(HERE / "trl_run.py"), *words], machine.environment(told.threads))
    found = [
        {"step": step, "seconds": sum(took["steps"][:step]), **_accuracy(told, ours, out / f"step-{step}", lora=lora)}
        for step in looks
    ]
    return _run("TRL", "dpo", lora=lora, rate=rate, reference=took["reference"], looks=found)


def _json_of(words: list[str], environment: dict[str, str]) -> Any:
    """What a process says on its standard output."""
    return json.loads(subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _run(
    side: str, objective: str, *, lora: bool, rate: float, reference: float, looks: list[dict[str, Any]]
) -> dict[str, Any]:
    adapter = "LoRA" if lora else "all weights"
    return {
        "side": side,
        "objective": objective,
        "adapter": adapter,
        "rate": rate,
        "reference_seconds": reference,
        "looks": looks,
    }


def _accuracy(told: argparse.Namespace, ours: Path, saved: Path, *, lora: bool) -> dict[str, Any]:
    """Share of our run's held-out pairs whose log-ratios under TRL's weights are in order, with its interval."""
    import numpy as np

    from trimtab import objectives
    from trimtab.analysis import estimates
    from trimtab.engine import evaluation, models, next_token
    from trimtab.engine.scoring import Scorer
    from trimtab.runtime.folder import Folder

    pairs, dpo = Folder(ours).heldout_pairs(), objectives.make("dpo")

    def sums(model: Any) -> Any:
        return evaluation.score(Scorer(model), pairs, objective=dpo, pack_tokens=1024).double().numpy()

    base = models.load(str(told.model), dtype="float32", device="cpu", offline=True).model
    before = sums(base)
    after = sums(next_token.with_adapter(base, saved) if lora else _with_weights(base, saved))
    gaps = (after - before)[0::2] - (after - before)[1::2]
    found = estimates.rate(np.heaviside(gaps, 0.5)[None, :], rows="pairs").to_json()
    return {key: found[key] for key in ("value", "ci95")}


def _with_weights(model: Any, saved: Path) -> Any:
    """Of a folder without a tokenizer, as a trainer's model saves itself."""
    from safetensors.torch import load_file

    rest = model.load_state_dict(load_file(saved / "model.safetensors"), strict=False)
    assert not rest.unexpected_keys
    assert set(rest.missing_keys) <= {"lm_head.weight"}  # tied to the embedding
    return model


def _ids(ours: Path, into: Path) -> Path:
    """The pairs as our run has them, in the order of its file."""
    rows = [[row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] for row in _rows(ours / "data" / "train.jsonl")]
    into.write_text(json.dumps(rows), encoding="utf-8")
    return into


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="the interpreter of an environment with trl 1.16")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help="pairs")
    parser.add_argument("--held-out", type=Path, required=True, help="pairs under other prompts")
    parser.add_argument("--rate", type=float, required=True, help="the learning rate that tuning picked")
    parser.add_argument("--no-defaults", dest="defaults", action="store_false", help="leave out TRL at its defaults")
    parser.add_argument("--threads", type=int, default=machine.threads_here())
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
