"""Do rounds on the newest model's own pairs beat one round on the first model's, at as many judged answers?

    python -m experiments.on_policy_rounds --runs runs/rounds    make what is missing, one JSON a run, and say what came
    python -m experiments.on_policy_rounds                       the same of the results that are kept beside this file

In the embedded world with its oracle, so that progress is the true score on the benchmark's prompts. Every arm answers
the same prompts as often and trains as long on as many prompts; only who answers, and against which reference the
later rounds train, differs. Differences are paired by seed: a seed draws the prompts, the answers and the order of
pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.arms import command
from experiments.measurement import mean
from experiments.words import text_of
from trimtab import store, windtunnel
from trimtab.commands import pairs, rounds
from trimtab.commands.rounds import RoundOptions
from trimtab.progress import SilentReporter
from trimtab.records import Message
from trimtab.runtime.benchmark_prompts import evaluation_tasks
from trimtab.runtime.prompt_source import SourcePrompt
from trimtab.runtime.run_setup import set_up
from trimtab.runtime.sampled_pairs import PairingOptions, sampled_answers

SHORT = Path(__file__).with_name("on_policy_rounds.jsonl")
SINGLE = "single"
ARMS = {SINGLE: RoundOptions(1), "newest": RoundOptions(3, "newest"), "first": RoundOptions(3, "first")}
N_SEEDS, N_PROMPTS, N_EVALUATION, SAMPLES = 5, 384, 400, 4


def tree(seed: int) -> dict[str, Any]:
    """The embedded world's recipe, with a seed for everything that is drawn."""
    return {"seed": seed, "windtunnel": {"pairs": N_PROMPTS, "seed": 100 + seed}, "generate": {"seed": seed}}


def make(folder: Path) -> None:
    """Every run that has no result yet; a stopped one goes on."""
    for arm, options in ARMS.items():
        for seed in range(N_SEEDS):
            path = folder / f"{arm}-{seed}.json"
            if not path.is_file():
                store.write_json(path, measure(folder, arm, options, seed))
                print(f"{arm}, seed {seed}", flush=True)


def measure(folder: Path, arm: str, options: RoundOptions, seed: int) -> dict[str, Any]:
    """One arm with one seed: the true score and length on the benchmark's prompts, before and after."""
    out = str(folder / f"{arm}-{seed}")
    config = pairs.resolve_config(windtunnel.NAME, {**tree(seed), "out": out}, trains=True)
    silent = SilentReporter()
    result = rounds.main(config, PairingOptions(SAMPLES), options, reporter=silent)
    prompts = [SourcePrompt(t.id, (Message("user", t.prompt),), task=t) for t in evaluation_tasks(N_EVALUATION)]
    setup, figures = set_up(config), {}
    for name, model in (("before", windtunnel.model_folder()), ("after", Path(result.rounds[-1].model))):
        answers = sampled_answers(setup, model, prompts, samples=1, reporter=silent, description="answers")
        texts = [turns[0].text for turns in answers]
        scores = [windtunnel.score(p.task, text).total for p, text in zip(prompts, texts, strict=True) if p.task]
        words = float(np.mean([windtunnel.words(text) for text in texts]))
        figures[name] = {"true_scores": [round(score, 4) for score in scores], "words": words}
    rows = [r.to_json() for r in result.rounds]
    return {"arm": arm, "seed": seed, **figures, "judged_answers": SAMPLES * N_PROMPTS, "rounds": rows}


def lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The true scores by arm, and the paired differences from the one round, in points with 95 % intervals."""
    scores_by_run = {(row["arm"], row["seed"]): 100 * np.array(row["after"]["true_scores"]) for row in results}
    text = []
    for arm in ARMS:
        seeds = [seed for seed in range(N_SEEDS) if {(arm, seed), (SINGLE, seed)} <= scores_by_run.keys()]
        if len(seeds) < 2:
            continue
        scores_KN = np.array([scores_by_run[arm, seed] for seed in seeds])
        words = np.mean([row["after"]["words"] for row in results if row["arm"] == arm])
        text.append(f"{arm}: {text_of(mean(scores_KN, unit='%'))}, {words:.1f} words, {len(seeds)} seeds")
        if arm != SINGLE:
            single_KN = np.array([scores_by_run[SINGLE, seed] for seed in seeds])
            gap = mean(scores_KN - single_KN, unit="points")
            text.append(f"{arm} less one round: {text_of(gap, with_sign=True)}")
    return text


if __name__ == "__main__":
    command(__doc__, make=make, lines=lines, kept=SHORT)
