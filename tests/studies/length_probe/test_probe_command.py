"""`trimtab probe`: its conclusion where the answer is known both ways, from made-up visits and from real runs."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probe_runs
from trial_runs import TINY, alone, call, rows_of, tree_of
from trimtab import cli
from trimtab.errors import ConfigError
from trimtab.progress import SilentReporter
from trimtab.studies.length_probe import command as probe
from trimtab.studies.length_probe.numbers import correlate, times_of
from trimtab.studies.length_probe.read import read


@pytest.fixture(autouse=True)
def _own_warnings() -> Iterator[None]:
    """The command line sends warnings to a stream that closes with the test; others want them as they were."""
    logger = logging.getLogger("trimtab")
    handlers, propagate = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate


def probe_tree(*roots: Path) -> Any:
    """What `probe.json` holds."""
    return json.loads(json.dumps(probe.main([str(root) for root in roots], reporter=SilentReporter()).to_json()))


def made_up(root: Path, objective: str, slope: float, *, seed: int = 0, n: int = 240) -> Path:
    rows, difference = probe_runs.pairs(n, seed=seed)
    last = probe_runs.leaving(difference, slope=slope, seed=seed)
    return probe_runs.write(root, objective=objective, last_visit=last, rows=rows, seed=seed)


# --- made-up visits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "slope", "order"),
    [
        ("apo_hinge_zero", -0.6, "first"),
        ("apo_hinge_zero", 0.0, "not distinguishable"),
        ("dpo", 0.6, "last"),
        pytest.param("apo_hinge_zero", 0.6, "last", marks=pytest.mark.slow),
        pytest.param("dpo", -0.6, "first", marks=pytest.mark.slow),
        pytest.param("dpo", 0.0, "not distinguishable", marks=pytest.mark.slow),
    ],
)
def test_the_order_that_was_made_is_the_order_that_is_found(
    tmp_path: Path, objective: str, slope: float, order: str
) -> None:
    told = probe_tree(made_up(tmp_path / "run", objective, slope))
    run = told["runs"][0]
    for side in ("responses", "chosen", "rejected", "pair"):
        assert run["sides"][side]["verdict"] == {"order": order, "by": "length_difference"}
    rho = run["sides"]["responses"]["correlations"]["length_difference"]
    assert abs(rho["value"]) < 0.1 if not slope else rho["value"] * slope > 0.2
    words = {"first": "**first**", "last": "**last**", "not distinguishable": "**not distinguishable**"}
    assert words[order] in told["headline"][0]["text"]
    assert ("Four in five such probes" in told["headline"][0]["text"]) == (order == "not distinguishable")
    assert 0.1 < rho["detectable"] < 0.25  # about 2.8/√200
    assert run["leaves"].startswith(
        "its gradient is exactly zero" if objective != "dpo" else "its coefficient is below 5%"
    )


def test_every_share_and_time_by_hand(tmp_path: Path) -> None:
    """240 pairs; those with the longer chosen response leave after visit 1, the others never."""
    rows, difference = probe_runs.pairs(240)
    last = np.where(difference > 0, 1, 3).tolist()
    run = probe_tree(probe_runs.write(tmp_path / "run", objective="apo_hinge_zero", last_visit=last, rows=rows))[
        "runs"
    ][0]
    assert [one["n"] for one in run["bins"]] == np.bincount(
        np.searchsorted([one["low"] for one in run["bins"][1:]], difference, side="right")
    ).tolist()
    sides = run["sides"]["chosen"]
    for at, one in enumerate(run["bins"]):
        inside = (difference >= (one["low"] if one["low"] is not None else -99)) & (
            difference <= (one["high"] if one["high"] is not None else 99)
        )
        share = float((difference[inside] <= 0).mean())
        assert [value["value"] for value in sides["active"][at]] == pytest.approx([1.0, share, share])
        assert sides["visits"][at]["mean"]["value"] == pytest.approx(1 + 2 * share)
        assert sides["visits"][at]["never"]["value"] == pytest.approx(share)
        assert sides["visits"][at]["median"] == (None if share >= 0.5 else 1)
        low, high = sides["active"][at][1]["ci95"]
        assert low - 1e-9 <= share <= high + 1e-9
    assert sides["share_left"]["value"] == pytest.approx(float((difference > 0).mean()))
    steps, shares = sides["active_by_step"]["step"], sides["active_by_step"]["share"]
    assert all(value == 1.0 for step, value in zip(steps, shares[-1], strict=True) if step < 4)
    assert all(value == 0.0 for step, value in zip(steps, shares[-1], strict=True) if step > 9)
    assert steps == pytest.approx([2.75, 7.25, 11.75, 16.25])  # four stretches of the 18 steps: about 30 visits a point


def test_what_quality_does_is_not_put_down_to_length(tmp_path: Path) -> None:
    """Better chosen responses leave early and are longer; at equal quality length has no part in it."""
    rng = np.random.default_rng(3)
    rows, _ = probe_runs.pairs(400, seed=3)
    quality = rng.choice([0.15, 0.5, 0.85, 1.0], size=400)
    for row, q in zip(rows, quality, strict=True):
        row["chosen_ids"] = [5] * int(10 + 20 * q + rng.integers(0, 10))
    last = np.clip(np.round(3.2 - 2.5 * quality + rng.normal(0, 0.6, 400)), 0, 3).astype(int).tolist()
    told = [(float(q), 0.15) for q in quality]
    run = probe_tree(probe_runs.write(tmp_path / "r", objective="dpo", last_visit=last, rows=rows, quality=told))[
        "runs"
    ][0]
    side = run["sides"]["responses"]
    assert run["truth"]
    assert side["correlations"]["length_difference"]["ci95"][1] < -0.2
    assert side["verdict"] == {"order": "not distinguishable", "by": "at_equal_quality"}


def test_a_response_that_leaves_by_its_own_length_alone_is_told_apart(tmp_path: Path) -> None:
    """Short rejected responses leave first, whatever the chosen ones do: long-favoured first, but by mechanics."""
    rng = np.random.default_rng(5)
    rows, _ = probe_runs.pairs(400, seed=5)
    length = np.array([len(row["rejected_ids"]) for row in rows])
    last = np.clip(np.round(length / 14 + rng.normal(0, 0.7, 400)), 0, 3).astype(int).tolist()
    told = probe_tree(
        probe_runs.write(tmp_path / "r", objective="apo_hinge_zero", last_visit=last, rows=rows, chosen_leaves=False)
    )
    assert told["runs"][0]["sides"]["chosen"]["verdict"]["order"] == "too few differ"
    assert told["runs"][0]["sides"]["responses"]["share_left"]["value"] == pytest.approx(
        np.mean(np.array(last) < 3) / 2
    )
    assert "The rejected response leaves most often" in told["headline"][1]["text"]
    assert (
        "**not distinguishable** from no order, so the response's own length may be at work"
        in told["headline"][1]["text"]
    )
    rejected = told["runs"][0]["sides"]["rejected"]
    assert rejected["verdict"]["order"] == "first"
    assert rejected["correlations"]["own_length"]["ci95"][0] > 0.5
    low, high = rejected["correlations"]["at_equal_length"]["ci95"]
    assert low < 0 < high


def test_nothing_is_said_of_an_order_where_hardly_any_leaves(tmp_path: Path) -> None:
    rows, difference = probe_runs.pairs(120)
    last = [3] * 120
    for at in np.argsort(difference)[-6:]:
        last[at] = 1  # the six most long-favoured leave: too few, however clear
    told = probe_tree(probe_runs.write(tmp_path / "r", objective="apo_hinge_zero", last_visit=last, rows=rows))
    assert told["runs"][0]["sides"]["responses"]["verdict"]["order"] == "too few differ"
    assert "**Too few responses leave training**" in told["headline"][0]["text"]
    assert "only 6 pairs have a time to saturation other than the most common one" in told["headline"][0]["text"]
    assert "at least 10 are needed" in told["headline"][0]["text"]


def test_without_an_interval_nothing_is_said_of_an_order_or_a_pull(tmp_path: Path) -> None:
    """All pairs of two prompts: enough times differ, but two prompts cannot be drawn again."""
    rows, difference = probe_runs.pairs(60)
    for at, row in enumerate(rows):
        row["prompt_ids"] = [1, 2, at % 2]
    last = np.where(difference > 0, 1, 3).tolist()
    tree = probe_tree(probe_runs.write(tmp_path / "r", objective="dpo", last_visit=last, rows=rows))
    side, texts = tree["runs"][0]["sides"]["responses"], [sentence["text"] for sentence in tree["headline"]]
    assert side["n_apart"] >= 10
    assert side["correlations"]["pull"]["ci95"] is None
    assert "**Which pairs leave training first cannot be said**" in texts[0]
    assert "Too few responses" not in texts[0]
    assert "Whether the pull at the last visit depends on length cannot be said" in texts[1]
    assert not any("weaker" in text or "stronger" in text or "distinguishable" in text for text in texts)


def test_a_pull_is_called_weaker_where_its_interval_says_so(tmp_path: Path) -> None:
    """dpo has no dead zone: pairs with the longer chosen response have gone far by the end, the others have not."""
    rows, difference = probe_runs.pairs(120)
    last = np.where(difference > 0, 1, 3).tolist()
    tree = probe_tree(probe_runs.write(tmp_path / "dpo", objective="dpo", last_visit=last, rows=rows))
    (text,) = (sentence["text"] for sentence in tree["headline"] if "pull" in sentence["text"])
    assert "is **weaker** than on others" in text
    tree = probe_tree(probe_runs.write(tmp_path / "hinge", objective="apo_hinge_zero", last_visit=last, rows=rows))
    assert not any("pull" in sentence["text"] for sentence in tree["headline"])  # its responses leave


def test_the_page_says_in_plain_words_what_counts_as_what(tmp_path: Path) -> None:
    root = made_up(tmp_path / "run", "apo_hinge_zero", -0.6, n=120)
    probe_tree(root)
    page = (root / "probe.html").read_text(encoding="utf-8")
    assert "a response that never left counts as 3" in page
    assert "The reference&#39;s log-probabilities are not available either." in page
    for phrase in ("who never left", "not at hand", "commonest", "asked for", "could have been seen", "pull all alike"):
        assert phrase not in page


def test_seeds_are_pooled_and_runs_on_the_same_pairs_are_paired(tmp_path: Path) -> None:
    rows, difference = probe_runs.pairs(150)
    hinge = [probe_runs.leaving(difference, slope=-0.6, seed=seed) for seed in range(3)]
    none = [probe_runs.leaving(difference, slope=0.0, seed=seed) for seed in range(3)]
    for name, objective, lasts in (("hinge", "apo_hinge_zero", hinge), ("sigmoid", "dpo", none)):
        for seed, last in enumerate(lasts):
            probe_runs.write(
                tmp_path / name / f"seed-{seed}", objective=objective, last_visit=last, rows=rows, seed=seed
            )
    told = probe_tree(tmp_path / "hinge", tmp_path / "sigmoid")
    orders = [run["sides"]["responses"]["verdict"]["order"] for run in told["runs"]]
    assert orders == ["first", "not distinguishable"]
    rho = told["runs"][0]["sides"]["responses"]["correlations"]["length_difference"]
    assert rho["n_seeds"] == 3
    assert rho["n"] == 150
    assert rho["n_prompts"] == 100
    (apart,) = told["compared"]
    assert apart["why_not"] is None
    both = apart["sides"]["responses"]["correlations"]["length_difference"]
    values = [run["sides"]["responses"]["correlations"]["length_difference"]["value"] for run in told["runs"]]
    assert both["value"] == pytest.approx(values[0] - values[1])
    assert both["ci95"][1] < 0
    assert [run["label"].split()[0] for run in told["runs"]] == ["apo_hinge_zero", "dpo"]
    texts = [sentence["text"] for sentence in told["headline"]]
    assert any("hinge" in text and "**not the response's own length alone**" in text for text in texts)
    assert not any(text.startswith("dpo") and "own length" in text for text in texts)  # it has no order to explain


def test_runs_on_other_pairs_stand_side_by_side_unpaired(tmp_path: Path) -> None:
    told = probe_tree(*(made_up(tmp_path / str(seed), "dpo", 0.0, seed=seed, n=60) for seed in (1, 2)))
    assert told["compared"][0]["why_not"] == "they did not train on the same pairs"
    assert [run["bins"][0]["label"] for run in told["runs"]] == [told["runs"][0]["bins"][0]["label"]] * 2
    assert "not compared pair by pair" in told["headline"][-1]["text"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["apo_hinge_zero", "dpo"])
def test_no_relation_is_not_distinguishable_in_about_95_of_100_probes(tmp_path: Path, objective: str) -> None:
    silent = 0
    for seed in range(100):
        run = read(str(made_up(tmp_path / str(seed), objective, 0.0, seed=seed, n=120)))
        correlation = correlate(run, run.length_difference_P, times_of(run, "responses"))
        silent += correlation.estimate.direction(0.0) == "not distinguishable"
    assert 89 <= silent <= 99


# --- what it refuses -------------------------------------------------------------------------------------------------


def test_what_is_missing_is_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up(tmp_path / "run", "dpo", 0.0, n=60)
    (tmp_path / "empty").mkdir()
    old = Path(shutil.copytree(run, tmp_path / "old"))
    (old / "visits.jsonl").unlink()
    untrained = Path(shutil.copytree(run, tmp_path / "untrained"))
    (untrained / "metrics.jsonl").unlink()
    foreign = Path(shutil.copytree(run, tmp_path / "foreign"))
    (foreign / "visits.jsonl").write_text('{"step": 1, "pairs": [99], "chosen": [0.0], "rejected": [0.0]}\n')
    mixed = tmp_path / "mixed"
    made_up(mixed / "seed-0", "dpo", 0.0, n=60)
    made_up(mixed / "seed-1", "apo_hinge_zero", 0.0, n=60, seed=1)
    others = tmp_path / "others"
    made_up(others / "seed-0", "dpo", 0.0, n=60)
    made_up(others / "seed-1", "dpo", 0.0, n=60, seed=1)
    for words, said, code in (
        ([], "no run is named", 2),
        ([tmp_path / "nowhere"], "no such run folder", 2),
        ([tmp_path / "empty"], "is no run folder", 2),
        ([old], "has no visits.jsonl", 2),
        ([untrained], "has not been trained yet", 2),
        ([foreign], "does not have the form", 1),
        ([mixed], "differ in more than their seed", 2),
        ([others], "did not train on the same pairs", 2),
        ([run, run], "named twice", 2),
    ):
        got, out, err = call(["probe", *words], capsys)
        assert (got, out) == (code, ""), err
        assert said in err
        assert "→" in err
        assert "Traceback" not in err
        assert not any((Path(word) / "probe.json").exists() for word in words)


# --- real runs -------------------------------------------------------------------------------------------------------

QUICK = (
    *("--benchmark", "none", "--judge", "none", "--quiet"),
    *("--train.epochs", "4", "--train.batch-pairs", "16", "--train.learning-rate", "0.0005"),
)


def easy_and_hard(path: Path, *, easy_is_long: bool) -> Path:
    """Half of the pairs prefer one sentence to another in every row: learnt at once. Their chosen response is the
    longer one, or the shorter. The other half prefer random words to as many random words, give or take two: there is
    nothing to learn but each row by heart."""
    rng = np.random.default_rng(0)
    words = ["red", "blue", "green", "fox", "bear", "cat", "river", "hill", "house", "lamp", "chair", "table", "moon"]

    def some(n: int) -> str:
        return f"{' '.join(rng.choice(words, n))}."

    rows = []
    for at in range(96):
        if at % 2:
            sides = [some(6 + rng.integers(0, 3)) for _ in range(2)]
        else:
            sides = ["I am glad that we could talk about this.", "The capital is not known to me at all."]
            longer = 0 if easy_is_long else 1
            sides[longer] = f"{sides[longer]} {some(6)}"
        prompt = f"Say something about a {rng.choice(words)} and a {rng.choice(words)}, number {at}."
        rows.append({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def trained(parent: Path, objective: str, *, easy_is_long: bool) -> Path:
    data = easy_and_hard(parent / f"{easy_is_long}.jsonl", easy_is_long=easy_is_long)
    root = parent / f"{objective}-{easy_is_long}"
    with alone(parent / "home"):
        cli.main(
            ["run", "--model", "windtunnel", "--data", str(data), "--objective", objective, "--beta", "0.5", *QUICK,
             "--out", str(root)]
        )  # fmt: skip
    return root


@pytest.mark.parametrize(
    ("objective", "easy_is_long"),
    [
        ("apo_hinge_zero", True),
        pytest.param("apo_hinge_zero", False, marks=pytest.mark.slow),
        pytest.param("dpo", True, marks=pytest.mark.slow),
        pytest.param("dpo", False, marks=pytest.mark.slow),
    ],
)
def test_real_runs_on_pairs_made_easy_or_hard(tmp_path: Path, objective: str, easy_is_long: bool) -> None:
    root = trained(tmp_path, objective, easy_is_long=easy_is_long)
    with alone(tmp_path / "home"):
        tree = probe_tree(root)
    run = tree["runs"][0]
    assert run["sides"]["responses"]["verdict"]["order"] == ("first" if easy_is_long else "last")
    truth = tree["headline"][-1]["text"]
    assert "The true quality of these responses is not known" in truth
    assert "that does not measure quality" in truth  # the reference's log-probabilities are in the cache
    assert "not available" not in truth
    metrics, steps = rows_of(root / "metrics.jsonl"), rows_of(root / "visits.jsonl")
    assert run["steps"] == [len(metrics)]
    visits = read(str(root)).visits[0]
    for told, row in zip(metrics, steps, strict=True):  # what is replayed is what training saw
        at = visits.step_W == row["step"]
        assert at.sum() == len(row["pairs"])
        if objective == "apo_hinge_zero":
            for side, name in enumerate(("chosen", "rejected")):
                assert visits.active_WS[at, side].mean() == pytest.approx(told[f"active/{name}"], abs=1e-12)


def test_a_run_that_stopped_early_says_what_its_end_is(tmp_path: Path) -> None:
    root = made_up(tmp_path / "run", "apo_hinge_zero", -0.6, n=120)
    assert not any("stopped" in sentence["text"] for sentence in probe_tree(root)["headline"])
    visits = (root / "visits.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (root / "visits.jsonl").write_text("".join(visits[:6]), encoding="utf-8")
    text = "Training stopped after 6 of 9 steps; that step counts as the end."
    assert text in [sentence["text"] for sentence in probe_tree(root)["headline"]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded world with two seeds: judges, answers, true quality."""
    parent = tmp_path_factory.mktemp("probe")
    with alone(parent / "home"):
        cli.main(["run", *TINY, "--quiet", "--seeds", "2", "--out", str(parent / "run")])
    return parent / "run"


def test_the_embedded_world_brings_truth_answers_and_judges(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(tiny.parent / "home"):
        code, out, err = call(["probe", tiny, "--json"], capsys)
    assert code == 0, err
    told = json.loads(out)
    assert told == tree_of(tiny / "probe.json")
    run = told["runs"][0]
    assert run["truth"]
    assert run["reference"]
    assert run["seeds"] == [0, 1]
    assert run["n_visits"] == 1
    assert run["n_left_out"] > 0
    quality = {row["id"]: float(row["meta"]["quality_chosen"]) for row in rows_of(tiny / "seed-0/data/pairs.jsonl")}
    quality_PS = read(str(tiny)).quality_PS
    assert quality_PS is not None
    assert set(quality_PS[:, 0]) <= set(quality.values())
    answers = run["answers"]
    assert next(judge["judge"] for judge in answers["judges"]) == "oracle"
    assert sum(one["n"] for one in answers["bins"]) == 2 * answers["n_prompts"] == 32
    report = tree_of(tiny / "report.json")
    rate = next(judge["win_rate"]["value"] for judge in report["benchmark"]["judges"] if judge["judge"] == "oracle")
    assert answers["judges"][0]["win_rate"]["value"] == pytest.approx(rate)
    assert not any("true quality" in sentence["text"] for sentence in told["headline"])
    page = (tiny / "probe.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert page.count("<figure>") >= 7
    assert f"trimtab probe {tiny}" in page


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["aot", "aot_unpaired", "apo_zero", "bco_pair", "simpo", "repo", "sft", "ipo"])
def test_every_kind_of_objective_is_replayed_as_training_saw_it(tmp_path: Path, objective: str) -> None:
    root = tmp_path / "run"
    with alone(tmp_path / "home"):
        words = (*TINY, "--benchmark", "none", "--judge", "none", "--train.learning-rate", "0.003", "--quiet")
        config = {"objective": {"name": objective}, "model": {"name": "windtunnel"}, "data": {"source": "windtunnel"}}
        (tmp_path / "run.json").write_text(json.dumps(config))
        cli.main(["run", str(tmp_path / "run.json"), *words, "--out", str(root)])
        run = read(str(root))
        visits = run.visits[0]
        for told in rows_of(root / "metrics.jsonl"):
            at = visits.step_W == told["step"]
            for side, name in enumerate(("chosen", "rejected")):
                if run.objective.needs_reference:
                    assert visits.pull_WS[at, side].mean() == pytest.approx(told[f"pull/{name}"], abs=1e-5)
                if run.objective.has_dead_zone:
                    assert visits.active_WS[at, side].mean() == pytest.approx(told[f"active/{name}"])
        if objective == "aot":
            shutil.rmtree(tmp_path / "home")
            with pytest.raises(ConfigError, match="no longer in the cache"):
                read(str(root))
