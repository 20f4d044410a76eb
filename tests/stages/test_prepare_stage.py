"""Prepare: each row is kept or named, prompts are never on both sides, nothing is written when too much is bad."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.config import Config
from trimtab.errors import DataError
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import prepare

TINY_WORLD = {"pairs": 60, "prompts": 16}


@pytest.fixture
def model() -> Path:
    return windtunnel.model_folder()


def row(n: int, **over: Any) -> dict[str, Any]:
    return {"prompt": f"What is {n} plus {n}?", "chosen": f"{n} plus {n} is {2 * n}.", "rejected": "Good day."} | over


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def a_config(model: Path | str, source: Path | str, out: Path, **sections: Any) -> Config:
    tree = {"model": str(model), "data": str(source), "out": str(out), "engine": {"device": "cpu", "threads": 1}}
    return configuration.resolve(configuration.merge(tree, sections))


def prepared(config: Config) -> tuple[Folder, Recorder]:
    reporter = Recorder()
    prepare.main(set_up(config), reporter=reporter)
    return set_up(config).folder, reporter


def lines(folder: Folder, name: str) -> list[dict[str, Any]]:
    return store.read_jsonl(folder.data / f"{name}.jsonl")


@pytest.mark.parametrize("holdout", [0.0, 0.3, 0.9])
def test_a_prompt_is_on_one_side_with_all_its_pairs(model: Path, tmp_path: Path, holdout: float) -> None:
    rows = [row(n, chosen=f"It is {side}.") for n in range(60) for side in (6, 7, 8)]
    source = write(tmp_path / "rows.jsonl", rows)
    folder, _ = prepared(a_config(model, source, tmp_path / "run", data={"holdout": holdout}))
    train, heldout = lines(folder, "train"), lines(folder, "heldout")
    sides = [{tuple(one["prompt_ids"]) for one in side} for side in (train, heldout)]
    assert sides[0].isdisjoint(sides[1])
    assert len(train) + len(heldout) == 180
    assert len(heldout) % 3 == 0
    # 60 prompts, each on its own: five standard deviations
    assert abs(len(heldout) / 180 - holdout) <= 5 * (holdout * (1 - holdout) / 60) ** 0.5


def test_the_split_does_not_change_when_the_data_grow(model: Path, tmp_path: Path) -> None:
    few, many = (write(tmp_path / f"{n}.jsonl", [row(k) for k in range(n)]) for n in (40, 80))
    small, large = (
        prepared(a_config(model, source, tmp_path / source.stem, data={"holdout": 0.3}))[0] for source in (few, many)
    )
    for side in ("train", "heldout"):
        older = {tuple(one["prompt_ids"]) for one in lines(small, side)}
        assert older
        assert older <= {tuple(one["prompt_ids"]) for one in lines(large, side)}


def test_every_dropped_row_is_listed_with_its_reason(model: Path, tmp_path: Path) -> None:
    rows = [
        *(row(n) for n in range(60)),
        row(3),  # line 61: the same pair again
        row(70, rejected=" "),  # line 62
        row(71, rejected="Yes.", chosen="Yes."),  # line 63
        row(72, chosen="Yes.", rejected="No."),
        row(72, chosen="No.", rejected="Yes."),  # line 65: says the opposite of line 64
    ]
    source = write(tmp_path / "rows.jsonl", rows)
    folder, reporter = prepared(a_config(model, source, tmp_path / "run", data={"max_rejected": 0.2}))
    reasons = {one["id"].rpartition(":")[2]: one["reason"] for one in lines(folder, "rejected")}
    assert reasons == {
        "61": "duplicate",
        "62": "empty_response",
        "63": "identical_responses",
        "64": "contradictory",
        "65": "contradictory",
    }
    audit = store.read_json(folder.data / "audit.json")
    assert (audit["rows"], audit["kept"], audit["dropped"]) == (65, 60, 5)
    assert audit["train"] + audit["heldout"] == audit["kept"] == len(lines(folder, "pairs"))
    assert any("5 dropped" in line for line in reporter.lines)


def test_too_many_bad_rows_are_refused_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [row(n, **({"chosen": ""} if n % 10 == 0 else {})) for n in range(50)])
    out = tmp_path / "run"
    with pytest.raises(DataError) as refused:
        prepared(a_config(model, source, out))
    assert "5 of 50 rows (10.0%) are bad, more than data.max_rejected = 5%" in str(refused.value)
    assert "--data.max-rejected" in refused.value.remedy
    assert not out.exists()
    assert prepared(a_config(model, source, out, data={"max_rejected": 0.1}))[0].data.is_dir()


def test_nothing_left_to_train_on_is_refused(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [row(1)])
    with pytest.raises(DataError, match="no pair is left to train on"):
        prepared(a_config(model, source, tmp_path / "run", data={"holdout": 0.999999}))
    assert not (tmp_path / "run").exists()


def odd_rows() -> list[dict[str, Any]]:
    """Sound rows among every kind of bad one; responses of more than ten words are cut to the same ten tokens."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    return [
        *(row(n) for n in range(30)),
        row(40, chosen="Yes.", rejected="No."),  # contradicted by the row after next
        row(41, chosen=" ".join([*words, "Yes."]), rejected=" ".join([*words, "No."])),  # the same once cut …
        row(40, chosen="No.", rejected="Yes."),
        row(41, chosen=" ".join([*words, "No."]), rejected=" ".join([*words, "Yes."])),  # … and contradicted, too
        row(5),
        row(40, chosen="Yes.", rejected="No. No."),
        row(42, prompt=" ".join(words * 9)),  # too long
        row(43, chosen=" "),
        row(44, prompt=[{"role": "assistant", "content": "Hi."}]),
        row(40, chosen="Yes.", rejected="No."),  # a duplicate of a contradicted one
        *(row(n) for n in range(50, 60)),
    ]


def test_rows_that_go_to_disk_one_by_one_are_those_that_are_held_in_memory(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", odd_rows())
    limits = {"max_rejected": 0.5, "holdout": 0.3, "max_response_tokens": 10, "max_prompt_tokens": 40}
    config = a_config(model, source, tmp_path / "run", data=limits)
    folder, _ = prepared(config)
    held = prepare.prepare(set_up(config), reporter=Recorder())
    train, heldout = held.train, held.heldout
    assert {one["id"] for one in lines(folder, "pairs")} == {pair.id for pair in (*train, *heldout)}
    assert lines(folder, "train") == [pair.to_json() for pair in train]
    assert lines(folder, "heldout") == [pair.to_json() for pair in heldout]
    assert lines(folder, "rejected") == [one.to_json() for one in held.audit.dropped_rows]
    told = store.read_json(folder.data / "audit.json")
    assert held.audit.to_json().items() <= told.items()
    assert told["dropped_by_reason"] == {
        "contradictory": 3,
        "duplicate": 2,
        "identical_after_cut": 1,
        "prompt_too_long": 1,
        "empty_response": 1,
        "wrong_roles": 1,
    }
    assert (told["train"], told["heldout"]) == (len(train), len(heldout))


def test_memory_does_not_grow_with_the_rows(model: Path, tmp_path: Path) -> None:
    """A row that is held, with its tokens and its line, takes 40 kB; what stays of it in the audit takes 1 to 2 kB."""

    def peak(n: int) -> int:
        long = " ".join(["Good day."] * 150)
        source = write(tmp_path / f"{n}.jsonl", [row(k, chosen=f"{k}. {long}", rejected=long) for k in range(n)])
        tracemalloc.start()
        prepared(a_config(model, source, tmp_path / str(n), data={"max_response_tokens": 500, "holdout": 0}))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)  # caches and lazy imports
    assert peak(140) - peak(40) < 100 * 5_000


def test_a_source_that_changes_between_the_two_looks_is_found_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "rows.jsonl", [row(n) for n in range(20)])
    first_look = prepare.audit

    def changing(*words: Any, **named: Any) -> Any:
        found = first_look(*words, **named)
        write(source, [*(row(n) for n in range(20)), row(3, chosen="Good day.", rejected="3 plus 3 is 6.")])
        return found

    monkeypatch.setattr(prepare, "audit", changing)
    with pytest.raises(DataError, match="changed while it was read"):
        prepared(a_config(model, source, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_columns_with_other_names(model: Path, tmp_path: Path) -> None:
    rows = [{"q": f"Is it {n}?", "good": "Yes.", "bad": "No.", "score": n} for n in range(20)]
    source = write(tmp_path / "rows.jsonl", rows)
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    folder, _ = prepared(a_config(model, source, tmp_path / "run", data={"columns": columns, "holdout": 0}))
    pair = lines(folder, "pairs")[7]
    assert (pair["prompt"][-1]["content"], pair["chosen"], pair["rejected"]) == ("Is it 7?", "Yes.", "No.")
    with pytest.raises(DataError, match="wrong"):
        prepared(a_config(model, source, tmp_path / "other", data={"columns": columns | {"prompt": "wrong"}}))


def test_unchanged_data_are_prepared_once_and_changed_ones_again(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [row(n) for n in range(20)])
    config = a_config(model, source, tmp_path / "run")
    folder, _ = prepared(config)
    before = (folder.data / "manifest.json").stat().st_mtime_ns
    assert prepared(config)[1].lines == ["prepare: the pairs are prepared already"]
    assert (folder.data / "manifest.json").stat().st_mtime_ns == before
    write(source, [row(n) for n in range(25)])
    assert prepared(config)[1].lines != ["prepare: the pairs are prepared already"]
    assert store.read_json(folder.data / "audit.json")["rows"] == 25


def test_another_template_is_prepared_again(model: Path, tmp_path: Path) -> None:
    import shutil

    own = tmp_path / "model"
    shutil.copytree(model, own)
    source = write(tmp_path / "rows.jsonl", [row(n) for n in range(20)])
    config = a_config(own, source, tmp_path / "run")
    prepared(config)
    told = json.loads((own / "tokenizer_config.json").read_text())
    told["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
    told["chat_template"] += "{% if add_generation_prompt %}assistant: {% endif %}"
    (own / "tokenizer_config.json").write_text(json.dumps(told))
    (own / "chat_template.jinja").unlink(missing_ok=True)
    assert prepared(config)[1].lines != ["prepare: the pairs are prepared already"]


def test_limits_are_tokens_and_each_response_is_cut_on_its_own(model: Path, tmp_path: Path) -> None:
    rows = [row(n, chosen=" ".join(["Good day."] * 40), rejected="No.") for n in range(20)]
    config = a_config(
        model, write(tmp_path / "rows.jsonl", rows), tmp_path / "run", data={"max_response_tokens": 10, "holdout": 0}
    )
    folder, _ = prepared(config)
    for one in lines(folder, "train"):
        assert (len(one["chosen_ids"]), one["chosen_cut"]) == (10, True)
        assert one["rejected_ids"][-1] == 2  # <|im_end|>
        assert not one["rejected_cut"]


# --- the embedded world ----------------------------------------------------------------------------------------------


def world(out: Path, **dials: Any) -> list[dict[str, Any]]:
    config = a_config("windtunnel", "windtunnel", out, windtunnel=TINY_WORLD | dials, data={"holdout": 0})
    return lines(prepared(config)[0], "pairs")


def longer(pair: dict[str, Any]) -> int:
    return len(pair["chosen"].split()) - len(pair["rejected"].split())


def answers(pair: dict[str, Any]) -> tuple[str, ...]:
    return (pair["id"], *sorted((pair["chosen"], pair["rejected"])))


def test_the_dials_turn_labels_and_leave_the_answers(tmp_path: Path) -> None:
    plain, biased, noisy = (
        world(tmp_path / name, **dials)
        for name, dials in {"plain": {}, "biased": {"length_bias": 0.6}, "noisy": {"label_noise": 0.4}}.items()
    )
    assert len(plain) == len(biased) == len(noisy) == 60
    same = {answers(pair): pair for pair in plain}
    compared = [(same[answers(pair)], pair) for pair in biased if answers(pair) in same]
    assert len(compared) > 40  # a length term decides some ties, so a few pairs differ
    assert sum(longer(new) for _, new in compared) > sum(longer(old) for old, _ in compared)
    assert all(longer(new) >= longer(old) for old, new in compared)
    turned = [new["chosen"] != same[answers(new)]["chosen"] for new in noisy]
    assert 0.2 < sum(turned) / 60 < 0.6


def test_the_worlds_seed_decides_the_pairs_and_nothing_else_does(tmp_path: Path) -> None:
    base = {"windtunnel": TINY_WORLD, "data": {"holdout": 0}}
    made = [
        lines(prepared(a_config("windtunnel", "windtunnel", tmp_path / str(n), **(base | over)))[0], "pairs")
        for n, over in enumerate([{}, {"objective": "dpo", "seed": 7}, {"windtunnel": TINY_WORLD | {"seed": 1}}])
    ]
    assert made[0] == made[1]
    assert not {answers(pair) for pair in made[0]} & {answers(pair) for pair in made[2]}


def test_the_evaluation_prompts_are_none_of_the_training_prompts(tmp_path: Path) -> None:
    config = a_config("windtunnel", "windtunnel", tmp_path, windtunnel=TINY_WORLD, benchmark="windtunnel")
    audit = store.read_json(prepared(config)[0].data / "audit.json")
    assert audit["overlap_with_evaluation"]["rows"] == 0
