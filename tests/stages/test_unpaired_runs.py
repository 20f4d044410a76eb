"""Single responses with a label, from a file to a report: every row accounted for, nothing lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stage_runs import Recorder, align, make_config, make_pairs, prepare, weights, write_model
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.commands import audit as audit_command
from trimtab.config import Config
from trimtab.engine import kl, models
from trimtab.engine.packing import Group
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError, DataError
from trimtab.records import TokenPair
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import prepare as preparing
from trimtab.stages import reference, report, train

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}
HINGE = {"name": "apo_hinge_zero_unpaired", "beta": 2.0, "margin": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen")


def halves(pairs: list[TokenPair], *, bad_share: float = 1.0) -> list[TokenPair]:
    """Each pair as a good and a bad row; the latter only for the first `bad_share` of the pairs."""
    good = [TokenPair(f"{p.id}/good", p.prompt_ids, p.chosen_ids, ()) for p in pairs]
    bad = [TokenPair(f"{p.id}/bad", p.prompt_ids, (), p.rejected_ids) for p in pairs[: int(bad_share * len(pairs))]]
    return [row for rows in zip(good, bad, strict=False) for row in rows] + good[len(bad) :]


def run(out: Path, model: Path, *, rows: list[TokenPair] | None = None, **sections: Any) -> Folder:
    """52 steps over 13 epochs of 32 rows, at a rate that empties and refills the dead zone on the way."""
    train_keys = {"epochs": 13, "batch_pairs": 8, "learning_rate": 3e-4, "save_every": 100, "weight_decay": 0.01}
    config = make_config(out, model, train=train_keys, **({"objective": HINGE} | sections))
    prepare(config, halves(make_pairs(16)) if rows is None else rows, halves(make_pairs(4, seed=1, name="held")))
    folder, _ = align(config)
    return folder


def gap(one: Folder, other: Folder) -> float:
    """As in test_screening_runs.py."""
    a, b = weights(one), weights(other)
    names = [name for name in a if not name.endswith("k_proj.bias")]
    return max(float((a[name] - b[name]).norm() / a[name].norm().clamp_min(1e-12)) for name in names)


@pytest.mark.parametrize("adapter", [{}, LORA], ids=["full", "lora"])
def test_screened_trajectories_are_the_dense_ones(adapter: dict[str, Any], model: Path, tmp_path: Path) -> None:
    dense = run(tmp_path / "dense", model, engine={"screening": "off"}, adapter=adapter)
    screened = run(tmp_path / "screened", model, engine={"screening": "on"}, adapter=adapter)
    rows, dense_rows = store.read_jsonl(screened.metrics), store.read_jsonl(dense.metrics)
    assert len(rows) == 52
    assert sum(row["skipped_backward"] for row in rows) > 3  # it did skip
    assert [row["active/pair"] for row in rows] == [row["active/pair"] for row in dense_rows]
    assert gap(dense, screened) <= 1e-5
    counts = store.read_json(screened.screening)
    assert counts["responses_screened"] < 52 * 8  # one response a row: the absent side is never looked at


def test_a_batch_of_a_good_and_a_bad_row_has_the_gradient_of_the_pair(model: Path, tmp_path: Path) -> None:
    """One batch of all: Σ over 2P rows / 2P is half the paired gradient, which AdamW does not see."""
    whole = {"epochs": 4, "learning_rate": 1e-3, "weight_decay": 0.0, "max_grad_norm": 1e9}
    pairs = make_pairs(6)
    plain = make_config(
        tmp_path / "pairs", model, objective={"name": "apo_hinge_zero", "beta": 0.5}, train=whole | {"batch_pairs": 6}
    )
    prepare(plain, pairs)
    single = make_config(tmp_path / "rows", model, objective=HINGE | {"beta": 0.5}, train=whole | {"batch_pairs": 12})
    prepare(single, halves(pairs))
    folders = [align(config)[0] for config in (plain, single)]
    losses = [[row["loss"] for row in store.read_jsonl(folder.metrics)] for folder in folders]
    assert [2 * loss for loss in losses[1]] == pytest.approx(losses[0], rel=1e-4)
    norms = [[row["grad_norm"] for row in store.read_jsonl(folder.metrics)] for folder in folders]
    assert 2 * norms[1][0] == pytest.approx(norms[0][0], rel=1e-4)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "active/rejected"):
        columns = [[row[name] for row in store.read_jsonl(folder.metrics)] for folder in folders]
        assert columns[1] == pytest.approx(columns[0], rel=1e-3, abs=1e-4)


def test_shrinking_counts_no_side_that_is_absent(model: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", model, engine={"screening": "on", "shrinking": "on"})
    counts = store.read_json(folder.screening)
    assert counts["rechecked"] <= counts["shrunk_visits"] <= 52 * 8
    assert all(len(visit.get("held", [])) <= 8 for visit in store.iter_jsonl(folder.visits))


def test_every_batch_has_both_kinds_whatever_the_seed_and_epoch(model: Path, tmp_path: Path) -> None:
    rows = halves(make_pairs(30), bad_share=0.4)  # 30 good, 12 bad; batches of 7 have 5 and 2
    config = make_config(tmp_path / "run", model, objective=HINGE, train={"batch_pairs": 7, "epochs": 3})
    for seed in range(4):
        order = set_up(config.model_copy(update={"seed": seed})).training_order(rows)
        batches = [order.batch(step).indices for step in range(order.steps)]
        assert all(Counter(bool(rows[i].chosen_ids) for i in batch)[False] in (1, 2, 3) for batch in batches)
        for epoch in range(3):
            epoch_rows = [i for batch in batches[6 * epoch : 6 * epoch + 6] for i in batch]
            assert sorted(epoch_rows) == list(range(42))
        assert batches[0] != batches[6]


def test_a_batch_too_small_to_be_mixed_is_refused_with_one_that_is_not(model: Path, tmp_path: Path) -> None:
    rows = halves(make_pairs(30), bad_share=0.1)  # 3 bad of 33
    config = make_config(tmp_path / "run", model, objective=HINGE, train={"batch_pairs": 4})
    with pytest.raises(ConfigError, match="3 of 33 training rows are bad") as caught:
        set_up(config).training_order(rows)
    assert caught.value.remedy is not None
    enough = int(caught.value.remedy.partition("batch_pairs to ")[2].partition(",")[0])
    train_keys = {"batch_pairs": enough}
    assert set_up(make_config(tmp_path / "run", model, objective=HINGE, train=train_keys)).training_order(rows).is_mixed


def test_milestones_measure_the_tokens_and_the_sides_that_are_there(model: Path, tmp_path: Path) -> None:
    """Held-out rows that are all good have no rejected side; a tool's tokens count neither above nor below the line."""
    config = make_config(tmp_path / "run", model, objective=HINGE, train={"learning_rate": 1e-2}, select={"keep": True})
    held = [
        replace(row, chosen_foreign=((1, 3),)) for row in halves(make_pairs(9, seed=1, name="held"), bad_share=0.0)
        if len(row.chosen_ids) > 3
    ]  # fmt: skip
    prepare(config, halves(make_pairs(8)), held)
    folder, _ = align(config)
    last = store.read_json(folder.selection)["milestones"][-1]
    assert last["log_ratio_rejected"] is None
    loaded = models.load(str(folder.milestones / f"step-{last['step']:08d}"), dtype="float32", device="cpu")
    rows = dict(Scorer(loaded.model).by_key([Group.of_pair(p, i) for i, p in enumerate(held)], pack_tokens=64))
    start = dict(Scorer(models.load(str(model), dtype="float32", device="cpu").model).by_key(
        [Group.of_pair(p, i) for i, p in enumerate(held)], pack_tokens=64
    ))  # fmt: skip
    own = [torch.cat([(rows[key] - start[key])[:1], (rows[key] - start[key])[3:]]) for key in sorted(rows)]
    assert last["log_ratio_chosen"]["value"] == pytest.approx(float(torch.cat(own).mean()), rel=1e-3)
    assert last["drift"]["value"] == pytest.approx(float((0.5 * torch.cat(own) ** 2).mean()), rel=1e-3)


# --- KTO's reference point -------------------------------------------------------------------------------------------


def test_mismatched_rows_by_hand() -> None:
    """Every prompt gets a completion of another prompt, every completion but one is used at most twice around."""
    rows = halves(make_pairs(12))
    others = kl.mismatches(rows)
    prompts = {ids: row.prompt_ids for row in rows for _, ids in row.sides}
    assert [other.prompt_ids for other in others] == [row.prompt_ids for row in rows]
    assert all(len(other.sides) == 1 for other in others)
    longest = max(row.n_tokens for row in rows)
    for row, other in zip(rows, others, strict=True):
        whole = next(ids for ids in prompts if ids[: len(other.chosen_ids)] == other.chosen_ids)
        assert prompts[whole] != row.prompt_ids
        assert other.n_tokens <= longest
    kinds = [
        bool(next(row for row in rows if row.sides[0][1][: len(o.chosen_ids)] == o.chosen_ids).chosen_ids)
        for o in others
    ]
    assert 4 <= sum(kinds) <= 20  # from both kinds
    assert kl.mismatches(rows) == others
    assert kl.mismatches([]) == []


def test_kto_trains_with_the_kl_of_its_batches(model: Path, tmp_path: Path) -> None:
    """The logged KL is 0 before the first update, and later what a pass over the mismatched rows says."""
    folder = run(tmp_path / "run", model, objective={"name": "kto", "beta": 0.5, "margin": None})
    rows = store.read_jsonl(folder.metrics)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert max(row["kl"] for row in rows) > 0.01
    assert min(row["kl"] for row in rows) >= 0.0
    assert rows[-1]["rewards/margins"] > 0.1
    again = run(tmp_path / "again", model, objective={"name": "kto", "beta": 0.5, "margin": None})
    assert gap(folder, again) == 0.0


# --- from files ------------------------------------------------------------------------------------------------------


def verdicts(n: int = 60) -> list[dict[str, Any]]:
    """Sound rows, half of them good."""
    return [
        {"prompt": f"What is {i} plus {i}?", "completion": f"{i} plus {i} is {2 * i + i % 2}.", "label": i % 2 == 0}
        for i in range(n)
    ]


def turns(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": row["completion"]}]


FORMS: dict[str, Any] = {
    "trl": lambda row: row,
    "trl messages": lambda row: {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
        "label": row["label"],
    },
    "llama-factory sharegpt": lambda row: {"conversations": turns(row), "kto_tag": row["label"]},
    "llama-factory alpaca": lambda row: {
        "instruction": row["prompt"], "input": "", "output": row["completion"], "kto_tag": row["label"],
    },
    "log": lambda row: {"question": row["prompt"], "answer": row["completion"], "thumb": int(row["label"])},
}  # fmt: skip


def file_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def a_config(source: Path, out: Path, **sections: Any) -> Config:
    tree: dict[str, Any] = {
        "model": str(windtunnel.model_folder()),
        "data": {"source": str(source), "holdout": 0.2, "max_rejected": 0.2},
        "out": str(out),
        "objective": HINGE,
        "train": {"epochs": 1, "batch_pairs": 16, "learning_rate": 1e-3},
        "engine": {"device": "cpu", "threads": 1, "dtype": "float32"},
        "benchmark": "none",
        "judge": "none",
    }
    return configuration.resolve(configuration.merge(tree, sections))


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_is_prepared_to_the_same_rows(form: str, tmp_path: Path) -> None:
    source = file_of(tmp_path / "rows.jsonl", [FORMS[form](row) for row in verdicts()])
    columns = {"columns": {"prompt": "question", "completion": "answer", "label": "thumb"}} if form == "log" else {}
    config = a_config(source, tmp_path / "run", data=columns)
    preparing.main(set_up(config), reporter=Recorder())
    folder = Folder(tmp_path / "run")
    rows = folder.train_pairs() + folder.heldout_pairs()
    audit = store.read_json(folder.data / "audit.json")
    assert (audit["rows"], audit["kept"], audit["labels"]) == (60, 60, {"good": 30, "bad": 30})
    labels = {row.id: bool(row.chosen_ids) for row in rows}
    assert labels == {f"rows.jsonl:{i + 1}": i % 2 == 0 for i in range(60)}
    plain = a_config(file_of(tmp_path / "plain.jsonl", verdicts()), tmp_path / "plain")
    preparing.main(set_up(plain), reporter=Recorder())
    expected = {
        row.id.partition(":")[2]: row.prompt_ids + row.sides[0][1] for row in Folder(tmp_path / "plain").train_pairs()
    }
    assert {row.id.partition(":")[2]: row.prompt_ids + row.sides[0][1] for row in folder.train_pairs()} == expected


def faulty() -> list[dict[str, Any]]:
    """Sound rows, and one of each fault behind them: rows 61 to 66."""
    rows = verdicts()
    twin = rows[4]
    return [
        *rows,
        rows[10] | {"label": None},
        rows[11] | {"label": "maybe"},
        rows[12],  # a duplicate
        twin | {"label": not twin["label"]},  # contradicts row 5
        rows[13] | {"completion": "  "},
        rows[14] | {"label": 0.5},
    ]


def test_every_faulty_row_is_dropped_by_name(tmp_path: Path) -> None:
    config = a_config(file_of(tmp_path / "rows.jsonl", faulty()), tmp_path / "run")
    preparing.main(set_up(config), reporter=Recorder())
    folder = Folder(tmp_path / "run")
    rejected = {row["id"]: row["reason"] for row in store.read_jsonl(folder.data / "rejected.jsonl")}
    assert rejected == {
        "rows.jsonl:5": "contradictory",
        "rows.jsonl:61": "no_label",
        "rows.jsonl:62": "no_label",
        "rows.jsonl:63": "duplicate",
        "rows.jsonl:64": "contradictory",
        "rows.jsonl:65": "empty_response",
        "rows.jsonl:66": "no_label",
    }
    audit = store.read_json(folder.data / "audit.json")
    assert audit["rows"] == 66 == audit["kept"] + audit["dropped"]
    assert audit["labels"] == {"good": 29, "bad": 30}
    assert len(folder.train_pairs()) + len(folder.heldout_pairs()) == 59
    assert audit["length_bias"]["tokens"]["chosen_longer"] is None
    assert 0 < audit["length_bias"]["tokens"]["auc"] < 1


def test_the_audit_names_file_row_label_and_imbalance(tmp_path: Path) -> None:
    source = file_of(
        tmp_path / "rows.jsonl", [row for row in faulty() if row["label"] is not False or row["prompt"] < "What is 2"]
    )
    result = audit_command.main(str(source), {"data": {"max_rejected": "0.2"}})
    text = "\n".join(audit_command.lines(result))
    assert "no_label: the label is neither true nor false (first: rows.jsonl:" in text
    assert "'label' is nothing, neither true nor false" in text
    assert "objective.undesirable_weight" in text
    assert "length bias in characters: of the label, Cohen's d" in text
    assert text.endswith("a run would start on these data")


@pytest.mark.parametrize("label", [True, False])
def test_rows_of_one_label_are_refused_with_the_file_and_a_row(label: bool, tmp_path: Path) -> None:
    rows = [row | {"label": label} for row in verdicts()]
    config = a_config(file_of(tmp_path / "rows.jsonl", rows), tmp_path / "run")
    with pytest.raises(DataError, match=rf"rows.jsonl: all 60 rows are {'good' if label else 'bad'}.*rows.jsonl:1\)"):
        preparing.main(set_up(config), reporter=Recorder())


def test_an_objective_for_pairs_refuses_single_responses_by_name(tmp_path: Path) -> None:
    config = a_config(
        file_of(tmp_path / "rows.jsonl", verdicts()),
        tmp_path / "run",
        objective={"name": "dpo", "beta": 0.1, "margin": None},
    )
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1 is a single response with a label, and dpo reads pairs"
    ) as caught:
        preparing.main(set_up(config), reporter=Recorder())
    assert "apo_hinge_zero_unpaired" in str(caught.value.remedy)


def test_pairs_are_read_as_a_good_and_a_bad_row(tmp_path: Path) -> None:
    """A response that is chosen in one pair and rejected in another contradicts itself, and both rows go."""
    pairs = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "Good day."} for i in range(40)]
    pairs.append({"prompt": "What is 7?", "chosen": "Good day.", "rejected": "Seven."})
    config = a_config(file_of(tmp_path / "rows.jsonl", pairs), tmp_path / "run")
    preparing.main(set_up(config), reporter=Recorder())
    folder = Folder(tmp_path / "run")
    rejected = {row["id"]: row["reason"] for row in store.read_jsonl(folder.data / "rejected.jsonl")}
    assert rejected == {"rows.jsonl:8/bad": "contradictory", "rows.jsonl:41/good": "contradictory"}
    rows = folder.train_pairs() + folder.heldout_pairs()
    assert Counter(bool(row.chosen_ids) for row in rows) == {True: 40, False: 40}
    assert all(len(row.sides) == 1 for row in rows)


def test_grouping_by_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match="mixes good and bad rows in every batch"):
        configuration.resolve({"model": "m", "data": "d", "objective": "kto", "train": {"group_by": "prompt"}})


@pytest.mark.parametrize("name", ["apo_hinge_zero_unpaired", "kto"])
def test_a_run_from_a_file_of_verdicts_to_its_report(name: str, tmp_path: Path) -> None:
    objective = HINGE if name != "kto" else {"name": "kto", "beta": 0.1, "margin": None}
    config = a_config(file_of(tmp_path / "rows.jsonl", verdicts()), tmp_path / "run", objective=objective)
    setup, reporter = set_up(config), Recorder()
    preparing.main(setup, reporter=reporter)
    reference.main(setup, reporter=reporter)
    train.main(setup, reporter=reporter)
    report.main(setup, reporter=reporter)
    folder = Folder(tmp_path / "run")
    rows = store.read_jsonl(folder.metrics)
    assert rows[0]["loss"] == pytest.approx(1.0 if name != "kto" else 0.5, abs=1e-3)
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert (folder.root / "report.html").is_file()
    heldout = store.read_json(folder.heldout)
    assert len(heldout["after"]["labels"]) == heldout["n"] > 0


# --- ranked rows -----------------------------------------------------------------------------------------------------


def test_ranked_rows_go_from_a_file_to_a_report_with_every_row_accounted_for(tmp_path: Path) -> None:
    """40 prompts with three scores each (all differ: 3 pairs), one tie (2 pairs), one of equal scores, one response."""
    texts = ["It is {}.", "Good day.", "No."]
    ranked = [
        {"prompt": f"What is {i}?", "completions": [text.format(i) for text in texts], "scores": [5, 2, 1]}
        for i in range(40)
    ]
    ranked += [
        {"prompt": "What is a?", "completions": ["a", "b", "c"], "scores": [2, 2, 1]},
        {"prompt": "What is b?", "completions": ["a", "b"], "scores": [2, 2]},
        {"prompt": "What is c?", "completions": ["a"], "scores": [2]},
    ]
    objective = {"name": "odpo", "beta": 0.5, "margin": None}
    config = a_config(file_of(tmp_path / "rows.jsonl", ranked), tmp_path / "run", objective=objective)
    setup, reporter = set_up(config), Recorder()
    preparing.main(setup, reporter=reporter)
    folder = Folder(tmp_path / "run")
    audit = store.read_json(folder.data / "audit.json")
    assert (audit["rows"], audit["kept"], audit["dropped"]) == (124, 122, 2)
    assert "43 prompts with scored responses made 122 pairs (all); 2 ties" in audit["notes"]
    rejected = {row["id"]: row["reason"] for row in store.read_jsonl(folder.data / "rejected.jsonl")}
    assert rejected == {"rows.jsonl:42": "no_preference", "rows.jsonl:43": "one_response"}
    pairs = folder.train_pairs() + folder.heldout_pairs()
    assert Counter(pair.score_gap for pair in pairs) == {3.0: 40, 4.0: 40, 1.0: 42}
    reference.main(setup, reporter=reporter)
    train.main(setup, reporter=reporter)
    report.main(setup, reporter=reporter)
    first = store.read_jsonl(folder.metrics)[0]
    batch = [folder.train_pairs()[i] for i in set_up(config).training_order(folder.train_pairs()).batch(0).indices]
    gaps = torch.tensor([pair.score_gap for pair in batch], dtype=torch.float64)
    assert first["loss"] == pytest.approx(torch.log1p(gaps).mean().item(), abs=1e-4)  # −ln σ(−ln g) = ln(1 + g)


def test_an_objective_of_score_gaps_refuses_pairs_without(tmp_path: Path) -> None:
    pairs = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "Good day."} for i in range(40)]
    objective = {"name": "odpo", "beta": 0.5, "margin": None}
    config = a_config(file_of(tmp_path / "rows.jsonl", pairs), tmp_path / "run", objective=objective)
    with pytest.raises(DataError, match=r"rows\.jsonl:1 has no scores, and odpo reads how far they lie apart"):
        preparing.main(set_up(config), reporter=Recorder())


def test_a_key_of_ranked_rows_is_refused_where_there_are_none(tmp_path: Path) -> None:
    config = a_config(file_of(tmp_path / "rows.jsonl", verdicts()), tmp_path / "run", data={"pairs": "adjacent"})
    with pytest.raises(ConfigError, match=r"data\.pairs has no effect here"):
        preparing.main(set_up(config), reporter=Recorder())
