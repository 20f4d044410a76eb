"""Rows are drawn, sources mixed and prompts held out as the configuration says, and what cannot be is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.commands import audit as audit_command
from trimtab.commands import plan as plan_command
from trimtab.commands import reward
from trimtab.config import Config
from trimtab.errors import ConfigError, DataError
from trimtab.progress import SilentReporter
from trimtab.records import Message, digest
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import prepare

MODEL = str(windtunnel.model_folder())


def row(prompt: int, n: int = 0) -> dict[str, Any]:
    return {"prompt": f"What is {prompt} plus {prompt}?", "chosen": f"It is {n}.", "rejected": f"Good day {n}."}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def sorted_by_prompt(path: Path) -> str:
    """12 prompts of 40 pairs each, one prompt after another, as a file that goes by topic."""
    return write(path, [row(prompt, n) for prompt in range(12) for n in range(40)])


def a_config(out: Path, source: Any, **data: Any) -> Config:
    tree = {"model": MODEL, "data": {"source": source, **data}, "out": str(out)}
    return configuration.resolve(tree | {"engine": {"device": "cpu", "threads": 1}})


def prepared(config: Config) -> tuple[Folder, Recorder, dict[str, Any]]:
    reporter = Recorder()
    prepare.main(set_up(config), reporter=reporter)
    folder = set_up(config).folder
    return folder, reporter, store.read_json(folder.data / "audit.json")


def ids(folder: Folder, name: str) -> list[str]:
    return [one["id"] for one in store.read_jsonl(folder.data / f"{name}.jsonl")]


# --- data.limit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", ["random", "first"])
def test_a_limit_keeps_whole_prompts_whose_responses_are_rows(sample: str, tmp_path: Path) -> None:
    """HelpSteer2's form, 30 prompts of two rows: 15 rows are seven prompts, each a pair, and no response alone."""
    rows = [
        {"prompt": f"What is {n}?", "response": f"It is {n + part}.", "helpfulness": 3 - part}
        for n in range(30)
        for part in (0, 1)
    ]
    source = write(tmp_path / "rows.jsonl", rows)
    _, _, audit = prepared(a_config(tmp_path / "run", source, limit=15, sample=sample))
    assert (audit["rows_read"], audit["rows"], audit["kept"]) == (14, 7, 7)
    assert "7 prompts with scored responses made 7 pairs (all); 0 ties" in audit["notes"]
    pairs = {row["id"] for row in store.read_jsonl(tmp_path / "run" / "data" / "pairs.jsonl")}
    first = {f"rows.jsonl:{2 * n + 1}..{2 * n + 2}/1-2" for n in range(7)}
    assert (pairs == first) == (sample == "first")
    assert audit_command.main(source, {"data": {"limit": "15", "sample": sample}}).audit.n_kept == 7
    _, _, more = prepared(a_config(tmp_path / "more", source, limit=40, sample=sample))
    assert more["kept"] == 20
    assert pairs < {row["id"] for row in store.read_jsonl(tmp_path / "more" / "data" / "pairs.jsonl")}


def test_a_limit_draws_from_the_whole_file(tmp_path: Path) -> None:
    """The first 60 of these rows hold 2 of the 12 prompts; of 60 drawn ones 5 a prompt are expected."""
    source = sorted_by_prompt(tmp_path / "topics.jsonl")
    folder, _, audit = prepared(a_config(tmp_path / "run", source, limit=60, holdout=0.25))
    rows = sorted(int(one.rpartition(":")[2]) for one in [*ids(folder, "train"), *ids(folder, "heldout")])
    by_prompt = Counter((line - 1) // 40 for line in rows)
    assert (len(rows), len(by_prompt)) == (60, 12)
    # one prompt's share is hypergeometric: mean 5, sd 60·(1/12)·(11/12)·(420/479) = 4.02, √ = 2.0
    assert max(abs(n - 5) for n in by_prompt.values()) <= 8
    assert audit["train_prompts"] + audit["heldout_prompts"] == 12
    assert audit["heldout"] > 0


def test_a_draw_repeats_and_a_larger_one_holds_it(tmp_path: Path) -> None:
    source = sorted_by_prompt(tmp_path / "topics.jsonl")
    draws = {}
    for name, data in {
        "a": {"limit": 30}, "again": {"limit": 30}, "more": {"limit": 90}, "other": {"limit": 30, "seed": 1},
        "first": {"limit": 30, "sample": "first"},
    }.items():  # fmt: skip
        folder, _, _ = prepared(a_config(tmp_path / name, source, holdout=0, **data))
        draws[name] = ids(folder, "train")
    assert draws["a"] == draws["again"]
    assert set(draws["a"]) < set(draws["more"])
    assert set(draws["a"]) != set(draws["other"])
    assert draws["first"] == [f"topics.jsonl:{line}" for line in range(1, 31)]


def test_a_share_that_holds_nothing_out_is_said(tmp_path: Path) -> None:
    """Two prompts, and the hash of neither is below the smallest share."""
    source = write(tmp_path / "two.jsonl", [row(prompt, n) for prompt in (0, 1) for n in range(20)])
    config = a_config(tmp_path / "run", source, holdout=1e-9)
    _, reporter, audit = prepared(config)
    warning = "nothing is held out: data.holdout is 1e-09, the pairs have 2 prompts"
    assert any(line.startswith(f"prepare: warning: {warning}") for line in reporter.lines)
    assert any(note.startswith(warning) for note in audit["notes"])
    plan = plan_command.plan(set_up(config), reporter=SilentReporter())
    assert any(line.startswith(f"warning: {warning}") for line in plan_command.lines(plan))
    said = audit_command.main(source, {"data": {"holdout": "1e-9"}}).lines()
    assert any(line.startswith(f"warning: {warning}") for line in said)
    assert prepared(a_config(tmp_path / "none", source, holdout=0))[2]["notes"] == []


def test_a_run_of_a_version_that_took_the_first_rows_is_resumed_on_them(tmp_path: Path) -> None:
    from trimtab.commands.run import differing_keys
    from trimtab.config import files

    source = sorted_by_prompt(tmp_path / "topics.jsonl")
    config = a_config(tmp_path / "run", source, limit=30, sample="first")
    old = configuration.to_json(config)
    for key in ("sample", "seed", "eval", "eval_split"):  # as that version wrote it
        del old["data"][key]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(old))
    resumed = configuration.resolve(files.read_run(tmp_path / "run", flags={}))
    assert resumed == config
    assert differing_keys(files.stored_config(tmp_path / "run"), configuration.to_json(resumed)) == []
    old["data"] |= {"source": "windtunnel"}  # which draws nothing
    (tmp_path / "run/config.json").write_text(json.dumps(old))
    assert configuration.resolve(files.read_run(tmp_path / "run", flags={})).data.sample == "random"
    (tmp_path / "run/config.json").write_text(json.dumps(configuration.to_json(config)))
    anew = a_config(tmp_path / "run", source, limit=30)
    assert differing_keys(files.stored_config(tmp_path / "run"), configuration.to_json(anew)) == ["data.sample"]


# --- data.holdout -----------------------------------------------------------------------------------------------------


def test_a_prompt_in_two_spellings_goes_to_one_side(tmp_path: Path) -> None:
    """Case and white space made two prompts of it: of 15 in two spellings 20 were counted, some on both sides."""
    texts = [f"What is {n} plus {n}?" for n in range(15)]
    alone = write(tmp_path / "alone.jsonl", [row(n) for n in range(15)])
    folder, _, audit = prepared(a_config(tmp_path / "alone", alone, holdout=0.4))
    places = [int(digest([Message("user", text).to_json()])[:8], 16) / 2**32 for text in texts]
    assert ids(folder, "heldout") == [f"alone.jsonl:{n}" for n, place in enumerate(places, 1) if place < 0.4]
    spellings = [[row(n), row(n, 1) | {"prompt": f"{texts[n].upper()} "}] for n in range(15)]
    sides = {}
    for name, rows in (("two", spellings), ("swapped", [both[::-1] for both in spellings])):
        source = write(tmp_path / f"{name}.jsonl", [entry for both in rows for entry in both])
        config = a_config(tmp_path / name, source, holdout=0.4)
        folder, _, audit = prepared(config)
        train, heldout = (
            Counter((int(entry.rpartition(":")[2]) - 1) // 2 for entry in ids(folder, side))
            for side in ("train", "heldout")
        )
        assert set(train.values()) == set(heldout.values()) == {2}
        assert (audit["train_prompts"], audit["heldout_prompts"]) == (len(train), len(heldout))
        counts = audit_command.main(source, {"data": {"holdout": "0.4"}}).split
        assert counts.to_json() | {"sources": []} == {key: audit[key] for key in counts.to_json()} | {"sources": []}
        assert plan_command.plan(set_up(config), reporter=SilentReporter()).heldout_pairs == audit["heldout"]
        sides[name] = set(heldout)
    assert sides["two"] == sides["swapped"]


# --- data.eval --------------------------------------------------------------------------------------------------------


def test_a_held_out_set_takes_its_prompts_from_training(tmp_path: Path) -> None:
    """Prompts 0 and 1 are held out, 3 pairs each, written otherwise; 10 prompts of 4 pairs are there to train on."""
    source = write(tmp_path / "train.jsonl", [row(prompt, n) for prompt in range(10) for n in range(4)])
    held = [row(prompt, 100 + n) for prompt in (0, 1) for n in range(3)]
    evaluation = write(tmp_path / "eval.jsonl", [one | {"prompt": f" {one['prompt'].upper()}"} for one in held])
    config = a_config(tmp_path / "run", source, eval=evaluation)
    folder, reporter, audit = prepared(config)
    assert ids(folder, "heldout") == [f"eval.jsonl:{line}" for line in range(1, 7)]
    assert ids(folder, "train") == [f"train.jsonl:{line}" for line in range(9, 41)]
    assert [one["reason"] for one in store.read_jsonl(folder.data / "rejected.jsonl")] == ["held_out"] * 8
    assert (audit["train"], audit["heldout"], audit["leaked"], audit["kept"]) == (32, 6, 8, 40)
    assert (audit["train_prompts"], audit["heldout_prompts"]) == (8, 2)
    assert any("8 pairs (20.0%) have a prompt of" in line for line in reporter.lines)
    plan = plan_command.plan(set_up(config), reporter=SilentReporter())
    assert (plan.heldout_pairs, plan.leaked_pairs, plan.train.pairs) == (6, 8, 32)
    counts = audit_command.main(source, {"data": {"eval": evaluation}}).split
    assert (counts.train, counts.heldout, counts.leaked) == (32, 6, 8)


def test_another_held_out_set_is_another_run(tmp_path: Path) -> None:
    source = write(tmp_path / "train.jsonl", [row(prompt) for prompt in range(20)])
    evaluation = write(tmp_path / "eval.jsonl", [row(100)])
    config = a_config(tmp_path / "run", source, eval=evaluation)
    before = prepare.inputs(set_up(config))
    write(tmp_path / "eval.jsonl", [row(101)])
    after = prepare.inputs(set_up(config))
    assert before.digest != after.digest
    assert before.training.pairs != after.training.pairs


def test_a_held_out_set_that_is_no_good_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "train.jsonl", [row(prompt) for prompt in range(20)])
    bad = write(tmp_path / "bad.jsonl", [row(100) | {"chosen": ""}, row(101)])
    with pytest.raises(DataError, match="is trained on and held out at once"):
        prepared(a_config(tmp_path / "same", source, eval=source))
    with pytest.raises(DataError, match=r"data\.eval: 1 of 2 rows \(50\.0%\) are bad"):
        prepared(a_config(tmp_path / "bad", source, eval=bad))
    every = write(tmp_path / "every.jsonl", [row(prompt, 7) for prompt in range(20)])
    with pytest.raises(DataError, match="no pair is left to train on: all 20 have a prompt of"):
        prepared(a_config(tmp_path / "every", source, eval=every))
    with pytest.raises(DataError, match="no such file"):
        prepared(a_config(tmp_path / "none", source, eval=str(tmp_path / "none.jsonl")))


def test_an_audit_judges_the_held_out_set_as_a_run_does(tmp_path: Path) -> None:
    """It held every readable row out and said that a run would start."""
    source = write(tmp_path / "train.jsonl", [row(prompt) for prompt in range(20)])
    bad = write(tmp_path / "bad.jsonl", [row(100) | {"chosen": ""}, row(101)])
    result = audit_command.main(source, {"data": {"eval": bad}})
    with pytest.raises(DataError, match=r"data\.eval: 1 of 2 rows \(50\.0%\) are bad") as caught:
        prepared(a_config(tmp_path / "run", source, eval=bad))
    assert result.refusal is not None
    assert (result.refusal.message, result.refusal.remedy) == (caught.value.message, caught.value.remedy)
    assert f"`trimtab audit DATA --data.eval {bad} --model M --json` names them" in caught.value.remedy
    assert [entry["id"] for entry in result.to_json()["rejected"]] == ["bad.jsonl:1"]
    assert f"{bad} (data.eval): 2 rows: 1 kept, 1 dropped (50.0%)" in result.lines()
    flags = {"data": {"eval": bad, "max_rejected": "0.5"}, "model": {"name": MODEL}}
    result = audit_command.main(source, flags)
    _, _, audit = prepared(a_config(tmp_path / "run", source, eval=bad, max_rejected=0.5))
    assert result.refusal is None
    assert result.split.heldout == audit["heldout"] == 1
    for key in ("rows_read", "rows", "kept", "dropped_by_reason", "lengths", "length_bias"):
        assert result.to_json()["evaluation_set"][key] == audit["evaluation_set"][key]


def saved(folder: Path, **splits: list[dict[str, Any]]) -> str:
    """A data set with these splits, as `datasets` saves it."""
    import datasets

    folder.mkdir()
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(folder)
    return str(folder)


def test_a_split_of_a_saved_set_is_held_out(tmp_path: Path) -> None:
    """`train` was taken whatever the set has; of the set that is trained on no split could be held out."""
    splits = {"train": [row(prompt) for prompt in range(20)], "test": [row(prompt) for prompt in (0, 100, 101)]}
    source = saved(tmp_path / "set", **splits)
    config = a_config(tmp_path / "run", source, eval=source, eval_split="test")
    folder, reporter, audit = prepared(config)
    assert ids(folder, "heldout") == [f"set[test]:{n}" for n in (1, 2, 3)]
    assert ids(folder, "train") == [f"set[train]:{n}" for n in range(2, 21)]
    assert audit["evaluation"] == f"{source}[test]"
    assert any(f"3 held out (prompts: 3, from {source}[test])" in line for line in reporter.lines)
    data = {"eval": source, "eval_split": "test"}
    counts = audit_command.main(source, {"data": data}).split
    assert (counts.train, counts.heldout, counts.leaked) == (19, 3, 1)
    assert plan_command.plan(set_up(config), reporter=SilentReporter()).evaluation == f"{source}[test]"


def test_which_split_is_held_out_is_said(tmp_path: Path) -> None:
    rows = [row(prompt) for prompt in range(20)]
    source, other = write(tmp_path / "train.jsonl", rows), saved(tmp_path / "set", train=rows, test=[row(100)])
    with pytest.raises(DataError, match="several splits in it: train, test") as caught:
        prepared(a_config(tmp_path / "run", source, eval=other))
    assert caught.value.remedy == "name one of them: --data.eval_split NAME"
    with pytest.raises(DataError, match=r"set\[train\] is trained on and held out at once"):
        prepared(a_config(tmp_path / "run", other, eval=other, eval_split="train"))
    with pytest.raises(DataError, match="a file has no splits") as caught:
        prepared(a_config(tmp_path / "run", other, eval=source, eval_split="test"))
    assert caught.value.remedy == "leave data.eval_split out"
    with pytest.raises(ConfigError, match=r"data\.eval_split has no effect here: data\.eval is not set"):
        a_config(tmp_path / "run", other, eval_split="test")
    only = saved(tmp_path / "only", test=[row(100)])
    assert ids(prepared(a_config(tmp_path / "run", source, eval=only))[0], "heldout") == ["only[test]:1"]


def test_a_run_of_a_version_without_a_key_keeps_its_digests(tmp_path: Path) -> None:
    config = a_config(tmp_path / "run", "a.jsonl", eval="b.jsonl")
    tree = configuration.to_json(config)
    assert tree["data"].pop("eval_split") is None
    assert configuration.config_digest(config) == digest(tree)
    assert configuration.config_digest(config, "data") == digest({"data": tree["data"]})
    other = a_config(tmp_path / "run", "a.jsonl", eval="b.jsonl", eval_split="test")
    assert configuration.config_digest(other, "data") != configuration.config_digest(config, "data")


# --- several sources --------------------------------------------------------------------------------------------------


def test_weights_are_the_shares_of_pairs(tmp_path: Path) -> None:
    """30 and 40 rows at 2 : 1: as many as the first allows, 30 and 15; of 12 in all, 8 and 4."""
    first = write(tmp_path / "a.jsonl", [row(prompt) for prompt in range(30)])
    second = write(tmp_path / "b.jsonl", [row(prompt) for prompt in range(100, 140)])
    for limit, counts in ((None, {"a.jsonl": 30, "b.jsonl": 15}), (12, {"a.jsonl": 8, "b.jsonl": 4})):
        config = a_config(tmp_path / f"run-{limit}", {first: 2, second: 1}, limit=limit, holdout=0.3)
        folder, reporter, audit = prepared(config)
        names = Counter(one.rpartition(":")[0] for one in [*ids(folder, "train"), *ids(folder, "heldout")])
        assert names == counts
        assert {one["source"]: one["rows"] for one in audit["sources"]} == counts
        assert any(line.startswith("prepare:   b.jsonl: ") for line in reporter.lines)
        assert prepare.count(set_up(config)) == sum(counts.values())


def test_weights_are_the_shares_of_pairs_where_rows_make_several(tmp_path: Path) -> None:
    """Four scored responses make six pairs, or three of neighbours: at 1 : 1 the 24 pairs of the first go with those of
    4 such rows, or of 8. They were shares of rows."""
    first = write(tmp_path / "a.jsonl", [row(prompt) for prompt in range(24)])
    ranked = [
        {"prompt": f"Name {n}.", "completions": [f"{n} {word}" for word in "abcd"], "scores": [1, 2, 3, 4]}
        for n in range(20)
    ]
    second = write(tmp_path / "ranked.jsonl", ranked)
    for rule in ("all", "adjacent"):
        data = {"pairs": rule, "holdout": 0.2}
        config = a_config(tmp_path / rule, {first: 1, second: 1}, **data)
        _, _, audit = prepared(config)
        assert {entry["source"]: entry["rows"] for entry in audit["sources"]} == {"a.jsonl": 24, "ranked.jsonl": 24}
        assert prepare.count(set_up(config)) == audit["rows_read"] == 24 + (4 if rule == "all" else 8)
        result = audit_command.main(f"{first}:1,{second}:1", {"data": data})
        assert result.to_json()["sources"] == audit["sources"]
    _, _, audit = prepared(a_config(tmp_path / "few", {first: 1, second: 1}, limit=14))
    assert {entry["source"]: entry["rows"] for entry in audit["sources"]} == {"a.jsonl": 12, "ranked.jsonl": 12}


def test_sources_without_weights_give_all_their_rows(tmp_path: Path) -> None:
    """Files of one name keep their rows apart by their paths; formats may differ."""
    (tmp_path / "x").mkdir()
    first = write(tmp_path / "pairs.jsonl", [row(prompt) for prompt in range(10)])
    second = tmp_path / "x" / "pairs.jsonl"
    answers = {"chosen": {"from": "gpt", "value": "I."}, "rejected": {"from": "gpt", "value": "You."}}
    write(second, [{"conversations": [{"from": "human", "value": f"Who is {n}?"}]} | answers for n in range(5)])
    folder, _, _ = prepared(a_config(tmp_path / "run", [first, str(second)], holdout=0))
    assert ids(folder, "train") == [f"{first}:{n}" for n in range(1, 11)] + [f"{second}:{n}" for n in range(1, 6)]


def test_a_saved_set_without_splits_is_trained_on(tmp_path: Path) -> None:
    """It was refused: none of its splits is called `train`."""
    import datasets

    rows = datasets.Dataset.from_list([row(prompt) for prompt in range(20)])
    for name, split, words in (("plain", None, {}), ("named", "test", {"split": "test"})):
        rows.info.splits, rows._split = None, split and datasets.Split(split)
        rows.save_to_disk(str(tmp_path / name))
        folder, _, _ = prepared(a_config(tmp_path / f"run-{name}", str(tmp_path / name), holdout=0, **words))
        assert ids(folder, "train") == [f"{name}[{split or 'all'}]:{n}" for n in range(1, 21)]
    with pytest.raises(DataError, match="this is the split 'test', not 'train'") as caught:
        prepared(a_config(tmp_path / "run", str(tmp_path / "named")))
    assert caught.value.remedy == "write --data.split test"
    with pytest.raises(DataError, match="there are no splits in it"):
        prepared(a_config(tmp_path / "run", str(tmp_path / "plain"), split="test"))


def test_a_reward_model_takes_the_same_words() -> None:
    config = reward.resolve_config("a.jsonl:2,b.jsonl:1", {"model": MODEL, "data": {"eval": "held.jsonl"}})
    assert config.data.sources == {"a.jsonl": 2.0, "b.jsonl": 1.0}
    assert (config.data.eval, config.data.holdout) == ("held.jsonl", 0.05)
    assert reward.resolve_config("a.jsonl", {"model": MODEL}).data.holdout == reward.HOLDOUT


def test_what_of_sources_cannot_be_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [row(prompt) for prompt in range(30)])
    second = write(tmp_path / "b.jsonl", [row(100)])
    with pytest.raises(DataError, match="would give no row at these weights"):
        prepared(a_config(tmp_path / "run", {first: 1, second: 100}, limit=5))
    for source in (["windtunnel", first], [first, first], {first: 0}, {}, [""]):
        with pytest.raises(ConfigError, match=r"data\.source"):
            a_config(tmp_path / "run", source)
