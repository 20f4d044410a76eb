"""The page's part on a real model, from runs whose answers are known; and the order in which runs are made."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiments.measurement import Measurement
from experiments.question import Numbers
from experiments.questions import real_rates, real_settings, real_weights
from experiments.real import bundle, queue, rates, rewards, runs, settings
from experiments.real.rates import Trial, missing_trials
from experiments.real.runs import (
    FIRST,
    METHODS,
    RATES,
    SEEDS,
    SETS,
    TUNING_SET,
    UNTUNED,
    Run,
    missing_runs,
    tuned_rate,
)
from experiments.revision import ROOT

from experiments import page
from trimtab import store
from trimtab.records import Estimate, digest

HARMLESS = "hh-rlhf-harmless"
ABOUT = {"revision": "abc", "date": "2026-01-01", "hardware": {"processor": "a processor", "cores": 1}}


def result(run: Run, right: int, *, of: int = 20) -> dict[str, Any]:
    """Numbers of a run that orders the first `right` of its held-out pairs."""
    return {
        "run": {"source": run.source, "method": run.method, "rate": run.rate, "seed": run.seed},
        "about": ABOUT,
        "accuracy": right / of,
        "beta": 0.1,
        "log_ratios": [[1.0, -1.0] if i < right else [-1.0, 1.0] for i in range(of)],
        "tokens": [[9, 7], [7, 9], [9, 8], [5, 5]],
        "drift": 0.02,
        "unrelated_nll": [1.5, 1.6 + 0.01 * run.seed],
        "active": {"chosen": [100.0, 50.0], "rejected": [100.0, 25.0]},
        "skipped_backward": 0.4,
        "answers": {"before": [10, 20, 30], "after": [12, 21, 33]},
        "seconds": {"train": 60.0},
    }


def test_rates_come_first_then_the_sets_with_most_held_out_pairs() -> None:
    results: dict[Run, dict[str, Any]] = {}
    order = []
    while run := next(missing_runs(results), None):
        order.append(run)
        results[run] = result(run, {1e-3: 15}.get(run.rate, 12))
    assert order[:3] == [Run(TUNING_SET, "dpo", rate, 0) for rate in RATES]
    assert {run.method for run in order[:9]} == set(FIRST)
    assert order[24:48] == [Run(HARMLESS, method, 1e-3, seed) for seed in SEEDS for method in METHODS]
    # 8 methods: 3 rates, 3 seeds, less the one of tuning on its set; then 3 methods on a third set
    assert len(order) == len(set(order)) == 24 + 24 + 16 + 9
    assert tuned_rate("dpo", results) == 1e-3


def test_of_equal_rates_the_smallest_is_taken() -> None:
    results = {run: result(run, 12) for run in (Run(TUNING_SET, "dpo", rate, 0) for rate in RATES)}
    assert tuned_rate("dpo", results) == RATES[0]
    assert tuned_rate("apo_zero", results) is None


def answer_text(monkeypatch: pytest.MonkeyPatch, results: dict[Run, dict[str, Any]]) -> tuple[str, list[list[str]]]:
    monkeypatch.setattr(real_weights, "read_results", lambda: results)
    answer = real_weights.answer({}, Numbers({}))
    assert answer.table is not None
    return " ".join([*answer.sentences, *answer.meaning]), [[str(cell) for cell in row] for row in answer.table.rows]


def test_a_method_that_orders_more_pairs_than_dpo_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {}
    for method, right in (("dpo", 10), ("apo_zero", 10), ("apo_hinge_zero", 16)):
        for rate in RATES:
            run = Run(TUNING_SET, method, rate, 0)
            results[run] = result(run, right if rate == RATES[0] else 5)
        for seed in SEEDS:
            run = Run(HARMLESS, method, RATES[0], seed)
            results[run] = result(run, right + (seed == 1 and method != "dpo"))
    text, rows = answer_text(monkeypatch, results)
    # hinge: 80, 85, 80 % against 50: 30, 35, 30 points, whose 60 pairs allow no narrower interval; APO-zero 0, 5, 0
    assert f"after Holm: apo_hinge_zero on {HARMLESS} (+31.7 [+19.5, +44.8]); the others are not" in text
    hinge = next(row for row in rows if row[:2] == [HARMLESS, "apo_hinge_zero"])
    assert hinge[3:6] == ["3 × 20", "81.7 [69.4, 91.7]", "+31.7 [+19.5, +44.8]"]
    # σ(0.2) = .550, right in .80, .85 and .80: ECE 25, 30 and 25
    assert hinge[7] == "26.7"
    assert hinge[8:10] == ["0.020", "+2.0 [−0.5, +4.5]"]  # 2, 1 and 3 tokens a prompt, in every seed
    assert hinge[11:] == ["50 / 25"]
    # a seed's mean over runs: .10 (six of them, three of the set that picked the rate), .11, .12
    assert "after less before: +0.110 [+0.085, +0.135], from +0.100 to +0.120 in 12 runs" in text
    assert "18 runs have ended, 12 of them at a tuned rate" in text
    missing = [name for name in METHODS if name not in FIRST]
    assert all(name in text.split("Not tuned yet:")[1] for name in missing)


def test_the_run_that_picked_a_rate_makes_way_for_other_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where seeds share prompts no difference is tested, however far apart."""
    results = {}
    for method, right in (("dpo", 10), ("apo_hinge_zero", 16)):
        for rate in RATES:
            run = Run(TUNING_SET, method, rate, 0)
            results[run] = result(run, right if rate == RATES[0] else 5)
        for seed in SEEDS[1:]:
            run = Run(TUNING_SET, method, RATES[0], seed)
            results[run] = result(run, right - 2 * (method == "apo_hinge_zero"))
    text, rows = answer_text(monkeypatch, results)
    hinge = next(row for row in rows if row[1] == "apo_hinge_zero")
    assert hinge[3:5] == ["2 × 20", "70.0 [53.3, 84.8]"]  # 14 of 20 twice, without the 16 of seed 0
    assert hinge[6] == "–"
    assert (
        f"{TUNING_SET}: several seeds, not tested, points of held-out accuracy less DPO's: apo_hinge_zero +20.0."
        in text
    )
    assert "Holm" not in text


def test_equal_differences_in_every_seed_are_not_called_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {}
    for method in ("dpo", "apo_zero"):
        for rate in RATES:
            run = Run(TUNING_SET, method, rate, 0)
            results[run] = result(run, 10)
        for seed in SEEDS:
            run = Run(HARMLESS, method, RATES[0], seed)
            results[run] = result(run, 10 + (method == "apo_zero"))
    text, rows = answer_text(monkeypatch, results)
    # seeds that agree by chance are worth no more than their 60 pairs, of which 3 differ
    assert next(row for row in rows if row[:2] == [HARMLESS, "apo_zero"])[5] == "+5.0 [−0.7, +28.7]"
    assert (
        "of 1 comparisons with DPO none is apart from zero after Holm (80 % power for 8.1 points before Holm)" in text
    )
    assert f"One seed, held-out accuracy less DPO's: apo_zero on {TUNING_SET} (0.0 [−16.1, +16.1])." in text


def test_methods_that_order_every_pair_alike_have_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 pairs none differs: 1.96² / (40 + 1.96²) = 8.8 %."""
    results = {}
    for method in ("dpo", "aot"):
        for seed, tried in ((0, RATES), (1, RATES[:1]), (2, RATES[:1])):
            results |= {run: result(run, 10) for run in (Run(TUNING_SET, method, rate, seed) for rate in tried)}
    _, rows = answer_text(monkeypatch, results)
    assert next(row for row in rows if row[1] == "aot")[3:6] == ["2 × 20", "50.0 [33.8, 66.2]", "0.0 [−8.8, +8.8]"]


def test_a_percentage_ends_at_100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two answers 100, 75 and 50 % are preferred: Student's t over three seeds goes far beyond 100."""
    scores = {"untuned": [0.0, 0.0], **{f"{HARMLESS}-dpo-{RATES[0]:g}-{seed}": [1.0, 1.0 - seed] for seed in SEEDS}}
    monkeypatch.setattr(rewards, "read_scores", scores.get)
    results = {Run(TUNING_SET, "dpo", rate, 0): result(Run(TUNING_SET, "dpo", rate, 0), 10) for rate in RATES}
    results |= {run: result(run, 10) for run in (Run(HARMLESS, "dpo", RATES[0], seed) for seed in SEEDS)}
    text, rows = answer_text(monkeypatch, results)
    preferred = next(row for row in rows if row[0] == HARMLESS)[10]
    assert preferred.endswith(", 100.0]")
    assert "the reward model tells" not in text
    scores |= {"untuned": [0.0] * 20} | {
        f"{HARMLESS}-dpo-{RATES[0]:g}-{seed}": [1.0] * (18 - seed) + [-1.0] * (2 + seed) for seed in SEEDS
    }
    text, _ = answer_text(monkeypatch, results)
    assert "In 1 of 1 rows, each tested alone, the reward model tells the answers from the untuned model's" in text
    assert f"percent preferred: dpo on {HARMLESS} (85.0 [" in text


def test_what_contradicts_the_wind_tunnel_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {}
    for method in FIRST:
        for run in (Run(TUNING_SET, method, rate, 0) for rate in RATES):
            results[run] = result(run, 10)
        for seed in SEEDS:
            run = Run(HARMLESS, method, RATES[0], seed)
            results[run] = result(run, 10)
            results[run]["tokens"] = [[9, 5]] * 20  # labels like length
            if method == "apo_hinge_zero":
                results[run]["answers"]["after"] = [42, 51 + seed, 63]
    text, _ = answer_text(monkeypatch, results)
    assert text.startswith("The dead zone's answers")
    assert "against the wind tunnel; labels choose the longer response in 100 %" in text


@pytest.mark.parametrize(
    ("longer", "words"),
    [(60.0, "against the wind tunnel"), (45.0, "the wind tunnel says nothing of it")],
)
def test_longer_answers_are_against_the_wind_tunnel_where_labels_like_length(longer: float, words: str) -> None:
    estimate = Estimate(2.0, (1.0, 3.0), 64, "")
    assert words in real_weights._as_in_wind_tunnel(Measurement(estimate), longer)
    assert "not distinguishable" in real_weights._as_in_wind_tunnel(
        Measurement(replace(estimate, ci95=(-1.0, 3.0))), 60.0
    )


def _moved(method: str, drift: float, seed: int) -> dict[str, Any]:
    """12 of 20 pairs right, each gap in proportion to the drift: the larger, the more it overstates. The last seed has
    two of the methods the other way round."""
    tree = result(Run(HARMLESS, method, 1e-3, seed), 12)
    size = {0.1: 0.2, 0.2: 0.1}.get(drift, drift) if seed == SEEDS[-1] else drift
    rows = [[30 * size * x for x in row] for row in tree["log_ratios"]]
    return tree | {"drift": drift + 0.001 * seed, "log_ratios": rows}


@pytest.mark.parametrize(
    ("drifts", "words"),
    [
        ((0.1, 0.2, 0.4, 0.6), "further moved is worse calibrated (Kendall's τ a seed +0.89 ["),
        ((0.1, 0.1, 0.1, 0.1), "not distinguishable from no relation (Kendall's τ a seed –"),
    ],
)
def test_methods_that_move_further_are_worse_calibrated(drifts: tuple[float, ...], words: str) -> None:
    methods = (*FIRST, "aot")
    cells = [
        real_weights.Cell(HARMLESS, method, 1e-3, tuple(_moved(method, drift, seed) for seed in SEEDS))
        for method, drift in zip(methods, drifts, strict=True)
    ]
    (text,) = real_weights._drift(cells, numbers := Numbers({}))
    assert words in text
    assert f"from {drifts[0] + 0.001:.3f} and " in text
    assert f"real/{HARMLESS}/drift-and-ece" in numbers.entries
    # a method that lacks a seed is left out, and three are no ranking
    assert not real_weights._drift([*cells[:3], replace(cells[3], runs=cells[3].runs[:1])], Numbers({}))


def test_answers_of_another_processor_are_kept_beside_the_first(tmp_path: Path) -> None:
    def answers(name: str, before: str, after: str) -> str:
        folder = tmp_path / name / "answers"
        folder.mkdir(parents=True)
        for file, text in (("a.baseline.json", before), ("a.json", after)):
            store.write_json(folder / file, [{"output": text}])
        run = Run(TUNING_SET, "dpo", float(name.rpartition("-dpo-")[2].rpartition("-")[0]), 0)
        assert run.name == name
        return runs._keep_answers(run, work=tmp_path, folder=tmp_path / "kept")

    names = [answers(f"{TUNING_SET}-dpo-{rate}-0", before, "x") for rate, before in ((1, "a"), (2, "a"), (3, "b"))]
    assert names[:2] == [UNTUNED, UNTUNED]
    assert names[2].startswith(f"{UNTUNED}-")
    assert [store.read_json(tmp_path / "kept" / f"{name}.json") for name in names[1:]] == [["a"], ["b"]]


def test_a_reward_model_that_has_scored_both_is_read_and_introduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {}
    for rate in RATES:
        run = Run(TUNING_SET, "dpo", rate, 0)
        results[run] = result(run, 12)
    picked = Run(TUNING_SET, "dpo", RATES[0], 0)
    known = {
        "reward_model": "abc",
        "heldout": {"accuracy": {"value": 0.62, "ci95": [0.57, 0.67], "n": 373}},
        "reward": {
            "length": {
                key: {"value": value}
                for key, value in {
                    "by_reward": 0.35, "by_labels": 0.45, "accuracy_longer": 0.46, "accuracy_shorter": 0.75,
                }.items()
            }
        },
    }  # fmt: skip
    monkeypatch.setattr(rewards, "ABOUT", tmp_path / "reward.json")
    monkeypatch.setattr(rewards, "SCORES", tmp_path)
    monkeypatch.setattr(rewards, "ANSWERS", tmp_path / "answers")
    texts = ["a", "b", "c", "d"]
    for name in (UNTUNED, picked.name):
        store.write_json(tmp_path / "answers" / f"{name}.json", texts)
    assert rewards.read_scores(UNTUNED) is None
    store.write_json(tmp_path / "reward.json", known)
    for name, scores in ((UNTUNED, [0.0, 0.0, 1.0, 1.0]), (picked.name, [1.0, 1.0, 1.0, 0.5])):
        known_texts = {"reward_model": "abc", "answers": digest(texts)}
        store.write_json(tmp_path / f"{name}.json", known_texts | {"scores": scores})
    text, rows = answer_text(monkeypatch, results)
    assert rows[0][10].startswith("62.5 [")  # two better, one equal, one worse
    assert "ranks 62.0 [57.0, 67.0] % of 373 held-out pairs" in text
    assert "longer response in 35 % of them (the labels in 45 %)" in text
    store.write_json(tmp_path / "answers" / f"{picked.name}.json", ["other", *texts[1:]])  # the run was made again
    assert answer_text(monkeypatch, results)[1][0][10] == "–"
    store.write_json(tmp_path / "answers" / f"{picked.name}.json", texts)
    assert answer_text(monkeypatch, results)[1][0][10] != "–"
    other_model = {"reward_model": "another", "answers": digest(texts), "scores": [0.0] * 4}
    store.write_json(tmp_path / f"{UNTUNED}.json", other_model)
    assert answer_text(monkeypatch, results)[1][0][10] == "–"


def test_without_runs_the_command_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_weights, "read_results", dict)
    assert real_weights.answer({}, Numbers({})).sentences == [f"Not run yet: `{real_weights.COMMAND}`."]
    assert set(SETS) == {"ukp-convarg1-strict", "hh-rlhf-harmless", "finegrained-rlhf"}


def trial(source: str, adapter: str, rate: float, right: int) -> tuple[Trial, dict[str, Any]]:
    numbers = result(Run(source, "dpo", rate, 0), right)
    return Trial(source, adapter, rate), numbers | {"sum_of_rates": 8 * rate}


def test_rates_name_the_best_and_what_the_defaults_do(monkeypatch: pytest.MonkeyPatch) -> None:
    results = dict([
        trial(TUNING_SET, "lora", 1e-5, 11), trial(TUNING_SET, "lora", 1e-3, 15), trial(TUNING_SET, "lora", 3e-3, 14),
        trial("hh-rlhf-harmless", "none", 1e-6, 10),
    ])  # fmt: skip
    monkeypatch.setattr(real_rates, "read_results", lambda: results)
    monkeypatch.setattr(real_rates, "DEFAULTS", {"lora": 1e-5, "none": 1e-6})
    answer = real_rates.answer({}, numbers := Numbers({}))
    text = " ".join(answer.sentences)
    # gaps of ±2 nats at β = .1: ln(1 + e^−.2) = .5981 where right, .7981 where not
    assert f"LoRA on {TUNING_SET} 0.001 (0.648)" in text
    assert f"At the default rates (1e-05 for LoRA and 1e-06 for all weights): LoRA on {TUNING_SET} 0.688" in text
    assert "all weights on hh-rlhf-harmless 0.698" in text
    assert answer.table is not None
    assert [str(cell) for cell in answer.table.rows[1]][:4] == [TUNING_SET, "LoRA", "0.001", "0.008"]
    assert numbers.entries[f"real-rates/{TUNING_SET}/lora/0.001/accuracy"]["value"] == 75.0
    assert all(missing.name in answer.limits[0] for missing in missing_trials(results))


def test_a_trial_that_the_papers_runs_have_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = Run(TUNING_SET, "dpo", 3e-4, 0)
    monkeypatch.setattr(runs, "read_results", lambda: {tuned: result(tuned, 12)})
    assert Trial(TUNING_SET, "lora", 3e-4) in rates.read_results(tmp_path)
    assert len({made.name for made in rates.trials()}) == len(rates.trials())


def test_a_setting_is_held_against_the_run_that_differs_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    better = settings.Variant(TUNING_SET, "objective.beta", "0.3")
    alike = settings.Variant(TUNING_SET, "train.epochs", "2")
    alone = settings.Variant("hh-rlhf-harmless", "objective.beta", "0.3")  # its base has not been run
    made = {variant: result(Run(variant.source, "dpo", settings.RATE, 0), 18) for variant in (better, alike, alone)}
    made[alike] = result(Run(TUNING_SET, "dpo", settings.RATE, 0), 10)
    monkeypatch.setattr(real_settings, "read_results", lambda: {v: r | {"sum_of_rates": 0.01} for v, r in made.items()})
    base = dict([trial(TUNING_SET, "lora", settings.RATE, 10)])
    monkeypatch.setattr(rates, "read_results", lambda: base)
    answer = real_settings.answer({}, numbers := Numbers({}))
    text = " ".join(answer.sentences)
    assert f"β 0.3 on {TUNING_SET} (+40.0 [" in text  # 18 of 20 pairs against 10
    assert "epochs" not in text
    assert "Of 2 settings" in text
    assert answer.table is not None
    assert [row[1] for row in answer.table.rows] == ["β 0.3", "epochs 2"]
    assert numbers.entries[f"real-settings/{TUNING_SET}/train.epochs/2/less-base"]["value"] == 0.0


def test_each_setting_is_another_than_the_default() -> None:
    """A variant that changed nothing would be a second run of its base, and its name would be that of another's."""
    assert len({variant.name for variant in settings.variants()}) == len(settings.variants()) == 3 * 7
    assert not {("objective.beta", "0.1"), ("train.epochs", "1"), ("train.batch-pairs", "8")} & set(settings.CHANGES)
    assert ("train.schedule", "linear") not in settings.CHANGES
    assert {variant.base for variant in settings.variants()} <= set(rates.trials()) | {
        Trial(TUNING_SET, "lora", rate) for rate in RATES
    }


def test_processes_share_the_runs_out(tmp_path: Path) -> None:
    """What another process holds is left to it, and what is there is not made again."""
    made: list[str] = []

    def job(name: str) -> queue.Job:
        def make() -> dict[str, Any]:
            made.append(name)
            return {"accuracy": 0.5, "seconds": {"all": 1.0}}

        return name, make

    def missing() -> list[queue.Job]:
        return [job(name) for name in ("a", "b", "c") if not (tmp_path / "results" / f"{name}.json").exists()]

    with (tmp_path / "a.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        queue.work_off(missing, results=tmp_path / "results", work=tmp_path, once=True)
        assert made == ["b"]
    queue.work_off(missing, results=tmp_path / "results", work=tmp_path)
    assert made == ["b", "a", "c"]
    queue.work_off(missing, results=tmp_path / "results", work=tmp_path)
    assert len(made) == 3


START_EACH = """
import os, runpy, sys
import torch, transformers  # once, as they take seconds
for module in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv = [module, "--help"]
        runpy.run_module(f"experiments.real.{module}", run_name="__main__")
        os._exit(1)
    if os.wait()[1]:
        sys.exit(f"{module} did not start")
"""


def test_each_command_of_the_real_runs_starts() -> None:
    """In a process of its own: modules that import each other in a circle fail only where one of them comes first."""
    modules = ["runs", "rates", "settings", "rewards", "bundle"]
    words = [sys.executable, "-c", START_EACH, *modules]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(modules)


def test_one_part_is_renewed_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (real_weights, real_rates, real_settings):
        monkeypatch.setattr(module, "read_results", dict)
    whole = page.findings(tmp_path)
    paths = {"page": tmp_path / "docs" / "findings.md", "numbers": tmp_path / "numbers.json"}
    page.write(whole, **paths)
    page.renew(real_weights.QUESTION, **paths)
    assert paths["page"].read_text(encoding="utf-8") == whole.text
    results = {run: result(run, 12) for run in (Run(TUNING_SET, "dpo", rate, 0) for rate in RATES)}
    monkeypatch.setattr(real_weights, "read_results", lambda: results)
    page.renew(real_weights.QUESTION, **paths)
    page.renew(real_weights.QUESTION, **paths)  # again, over itself
    text = paths["page"].read_text(encoding="utf-8")
    assert text.count("\n## On a real model\n") == text.count("- **[On a real model]") == 1
    assert "| ukp-convarg1-strict | dpo | 0.0003 | 1 × 20, picked the rate | 60.0" in text
    before, after = (part.split("\n## ") for part in (whole.text, text))
    renewed = [place for place, parts in enumerate(zip(before, after, strict=True)) if parts[0] != parts[1]]
    titles = [after[place].split("\n")[0] for place in renewed]
    assert titles == ["Answers", "On a real model"]  # where they were
    numbers = store.read_json(paths["numbers"])["numbers"]
    assert numbers["real/ukp-convarg1-strict/dpo/accuracy"]["value"] == 60.0
    assert set(numbers) > set(whole.numbers["numbers"])


def test_a_bundle_says_what_is_in_it_and_is_the_same_twice(tmp_path: Path) -> None:
    files = bundle.contents()
    paths = [tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"]
    for path in paths:
        bundle.write(path, files)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with tarfile.open(paths[0]) as archive:
        inside = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        data = {name: stream.read() for name, stream in inside.items() if stream is not None}
    digests = json.loads(data.pop("manifest.json"))
    assert digests == {name: hashlib.sha256(text).hexdigest() for name, text in data.items()}
    runs = [json.loads(text) for name, text in data.items() if name.startswith("runs/")]
    assert runs
    assert all({"config", "digests", "packages", "about", "accuracy"} <= set(run) for run in runs)
