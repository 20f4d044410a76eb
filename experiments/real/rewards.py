"""What a reward model of one's own says of the answers that real runs gave: one score a prompt, before and after.

    python -m experiments.real.rewards --reward RUN --shared DIR

RUN is a folder of `trimtab reward` (its command is in `docs/reward.md`). Every text in `experiments/real/answers/` is
scored that this reward model has not scored yet; scores go into `experiments/real/rewards/`, and what is known of the
reward model (held-out accuracy, its liking for length) into `experiments/real/reward.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from experiments.real.prompts import prompts
from experiments.revision import revision
from trimtab import store
from trimtab.engine import identity
from trimtab.engine.reward import RewardModel
from trimtab.records import Message, digest

HERE = Path(__file__).parent
ANSWERS, SCORES, ABOUT = HERE / "answers", HERE / "rewards", HERE / "reward.json"


def read_scores(name: str) -> list[float] | None:
    """A score a prompt, of a run's answers or of `untuned`; None where the reward model of `reward.json` has not scored
    the answers that are there."""
    path, answers = SCORES / f"{name}.json", ANSWERS / f"{name}.json"
    if not all(file.exists() for file in (path, answers, ABOUT)):
        return None
    tree, model = store.read_json(path), store.read_json(ABOUT)["reward_model"]
    is_of_these = (tree["reward_model"], tree["answers"]) == (model, digest(store.read_json(answers)))
    return list(tree["scores"]) if is_of_these else None


def about(run: Path) -> dict[str, Any]:
    """Which reward model, and what its own held-out pairs say of it."""
    report = store.read_json(run / "report.json")
    weights = digest(asdict(identity.identify(str(run / "model"))))
    return {"reward_model": weights, "revision": revision(), "heldout": report["heldout"], "reward": report["reward"]}


def in_words(known: Mapping[str, Any]) -> str:
    """How far a verdict of this reward model can be trusted."""
    accuracy, length = known["heldout"]["accuracy"], known["reward"]["length"]
    low, high = (100 * bound for bound in accuracy["ci95"])
    by_reward, by_labels, longer, shorter = (
        100 * length[key]["value"] for key in ("by_reward", "by_labels", "accuracy_longer", "accuracy_shorter")
    )
    return (
        f"The reward model (SmolLM2-135M, trained on hh-rlhf-harmless) ranks {100 * accuracy['value']:.1f} "
        f"[{low:.1f}, {high:.1f}] % of {accuracy['n']} held-out pairs as labelled, prefers the longer response in "
        f"{by_reward:.0f} % of them (the labels in {by_labels:.0f} %), and is right on {longer:.0f} % where the longer "
        f"one was chosen, on {shorter:.0f} % where the shorter."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward", type=Path, required=True, metavar="RUN")
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    known = about(arguments.reward)
    store.write_text(ABOUT, json.dumps(known, indent=1) + "\n")
    names = [path.stem for path in sorted(ANSWERS.glob("*.json"))]
    missing = [name for name in names if read_scores(name) is None]
    model = RewardModel.load(arguments.reward / "model", dtype="float32", device="cpu")
    questions = prompts(arguments.shared, AutoTokenizer.from_pretrained(arguments.reward / "model"))
    for name in missing:
        texts = store.read_json(ANSWERS / f"{name}.json")
        rows = [(Message("user", a), Message("assistant", b)) for a, b in zip(questions, texts, strict=True)]
        scores = [None if score is None else round(score, 4) for score in model.scores(rows)]
        tree = {"reward_model": known["reward_model"], "answers": digest(texts), "scores": scores}
        store.write_text(SCORES / f"{name}.json", json.dumps(tree) + "\n")
        print(f"{name}: {len(scores)} answers scored", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
