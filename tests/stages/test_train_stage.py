"""The train stage on small real models: exact resume, refusals, guards, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from stage_runs import (
    Recorder,
    align,
    make_config,
    make_pairs,
    prepare,
    weights,
    write_model,
)
from stage_runs import same_training as same
from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config
from trimtab.engine import gradient, models, optim, trainable
from trimtab.engine import reference as cache
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError, NumericsError, StopError
from trimtab.records import TokenPair
from trimtab.runtime import model_card, set_up
from trimtab.runtime.folder import Folder
from trimtab.runtime.milestones import Selection
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.training_plan import training_plan
from trimtab.stages import reference as reference_stage
from trimtab.stages import train

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}
DROPOUT = LORA | {"dropout": 0.2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen")


# --- what a run writes --------------------------------------------------------------------------------------------


def test_a_row_of_metrics_has_the_keys_that_others_rely_on(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model))
    rows = store.read_jsonl(folder.metrics)
    assert [row["step"] for row in rows] == list(range(1, 9))
    contract = [
        "step", "epoch", "seconds", "step_seconds", "loss", "grad_norm", "learning_rate",
        "rewards/chosen", "rewards/rejected",
        "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected", "active/chosen", "active/rejected",
        "active/pair", "skipped_backward", "skipped_forward", "promoted", "tokens", "tokens_per_second",
        "peak_memory_bytes",
    ]  # fmt: skip
    assert all(list(row) == [*contract, "pull/chosen", "pull/rejected"] for row in rows)
    for row in rows:
        assert all(0 <= row[key] <= 1 for key in row if key.startswith(("active/", "pull/")) or "accura" in key)
        assert 0 <= row["skipped_backward"] <= 1
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["step_seconds"])
        assert row["rewards/margins"] == pytest.approx(row["rewards/chosen"] - row["rewards/rejected"], abs=1e-6)
        assert row["active/pair"] >= max(row["active/chosen"], row["active/rejected"])
    assert [row["epoch"] for row in rows] == [i / 4 for i in range(1, 9)]
    assert rows[0]["loss"] == pytest.approx(2.0, abs=1e-4)  # 2m while policy = reference
    assert rows[0]["pull/chosen"] == rows[0]["pull/rejected"] == 1.0
    assert rows[-1]["seconds"] >= rows[0]["seconds"] > 0
    assert rows[0]["peak_memory_bytes"] > 50e6


def test_the_visits_are_what_the_metrics_average(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model, train={"epochs": 3}))
    rows, visits = store.read_jsonl(folder.metrics), store.read_jsonl(folder.visits)
    n_pairs = len(store.read_jsonl(folder.data / "train.jsonl"))
    assert [visit["step"] for visit in visits] == [row["step"] for row in rows]
    seen = [index for visit in visits for index in visit["pairs"]]
    assert all(sorted(seen[start : start + n_pairs]) == list(range(n_pairs)) for start in range(0, len(seen), n_pairs))
    beta, margin = 0.5, 1.0
    for visit, row in zip(visits, rows, strict=True):
        chosen, rejected = torch.tensor(visit["chosen"]), torch.tensor(visit["rejected"])
        assert row["rewards/chosen"] == pytest.approx(float(beta * chosen.mean()), abs=1e-6)
        assert row["active/chosen"] == float((beta * chosen < margin).double().mean())
        assert row["active/rejected"] == float((beta * rejected > -margin).double().mean())
    assert any(row["active/rejected"] < 1 for row in rows)


def test_the_run_leaves_its_objective_fulfilled_on_what_it_saw(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model, train={"epochs": 8}))
    rows = store.read_jsonl(folder.metrics)
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert rows[-1]["rewards/accuracies"] == 1.0
    assert rows[-1]["active/pair"] < 1.0


def test_a_full_model_loads_in_plain_transformers_as_it_was_trained(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = make_config(tmp_path / "run", model)
    folder, _ = align(config)
    plain = AutoModelForCausalLM.from_pretrained(folder.model)
    assert AutoTokenizer.from_pretrained(folder.model).vocab_size == 61
    pairs = folder.heldout_pairs()
    sums = _sums(Scorer(plain), pairs)
    key = reference_key(set_up(config))
    reference_R = torch.stack([row.sum() for row in cache.read(key, pairs).of_pairs(pairs)])
    gaps = 0.5 * ((sums - reference_R)[0::2] - (sums - reference_R)[1::2])
    told = store.read_json(folder.heldout)
    assert told["n"] == 4
    assert told["before"]["reward_gaps"] == [0.0] * 4
    assert told["before"]["accuracy"] == 0.5  # a tie counts half
    assert told["after"]["reward_gaps"] == pytest.approx(gaps.tolist(), abs=1e-4)
    assert told["after"]["accuracy"] == pytest.approx(float((gaps > 0).double().mean()))
    assert store.damage(folder.model) == []


def test_a_lora_run_leaves_a_peft_folder_that_loads(model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, _ = align(make_config(tmp_path / "run", model, adapter=LORA))
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder.model)
    pairs = folder.heldout_pairs()
    sums = _sums(Scorer(loaded), pairs)
    with trainable.reference_mode(loaded):
        reference_R = _sums(Scorer(loaded), pairs)
    gaps = 0.5 * ((sums - reference_R)[0::2] - (sums - reference_R)[1::2])
    assert gaps.abs().max() > 0.01
    assert store.read_json(folder.heldout)["after"]["reward_gaps"] == pytest.approx(gaps.tolist(), abs=1e-4)
    names = {file.name for file in folder.model.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= names
    assert "model.safetensors" not in names


def _sums(scorer: Scorer, pairs: list[Any]) -> torch.Tensor:
    groups = [gradient.Group.of_pair(pair, i) for i, pair in enumerate(pairs)]
    rows = dict(scorer.by_key(groups, pack_tokens=512))
    return torch.stack([rows[key].double().sum() for key in range(2 * len(pairs))]).float()


def test_the_card_says_what_it_is(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model, adapter=LORA))
    card = (folder.model / "README.md").read_text(encoding="utf-8")
    assert f'base_model: "{model}"' in card
    assert "library_name: peft" in card
    for words in ("apo_hinge_zero (beta 0.5, margin 1.0)", "8 optimizer steps", "Held-out pairs", '"batch_pairs": 4'):
        assert words in card


def a_card(config: Config, *, gaps: list[float], warning: str | None = None) -> str:
    row = {"step": 8, "epoch": 2.0, "seconds": 1.0, "loss": 0.5, "active/pair": 1.0}
    why = "no earlier milestone has a distinguishably lower loss"
    chosen = Selection("held_out", "", 8, (), 8, why, drift_note=None, warning=warning, lost=(), milestones=())
    after = {"accuracy": 0.75, "reward_gap": 0.5, "reward_gaps": gaps}
    return model_card.text(set_up(config), rows=[row], heldout={"n": len(gaps), "after": after}, selection=chosen)


def test_the_card_claims_what_the_run_shows(model: Path, tmp_path: Path) -> None:
    """Of 15 right of 20 Wilson's interval is .531 to .888; below ten pairs there is no finding; an objective without a
    dead zone lets go of no pair, so that none is "still" active; a model worse than before training says so."""
    config = make_config(tmp_path / "run", model)
    card = a_card(config, gaps=[1.0] * 15 + [-1.0] * 5, warning="the loss is higher than before training")
    assert "reward accuracy 0.750 (95 % CI 0.531 to 0.888" in card
    assert "- Warning: the loss is higher than before training" in card
    assert "pairs still active there: 100%" in card
    tree = configuration.to_json(config) | {"objective": {"name": "dpo"}}
    card = a_card(configuration.resolve(tree), gaps=[1.0] * 3 + [-1.0])
    assert "Held-out pairs: 4, too few to say" in card
    for words in ("0.750", "still active", "Warning"):
        assert words not in card.split("## Configuration")[0]


def test_nothing_but_the_listed_files(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model))
    names = {path.name for path in folder.root.iterdir()}
    made = {
        "data",
        "reference.json",
        "checkpoints",
        "metrics.jsonl",
        "visits.jsonl",
        "outlook.json",
        "model",
        "heldout.json",
        "selection.json",
        "screening.json",
    }
    assert names == made | {".stages"}
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-00000008"]


def test_more_checkpoints_than_two_stay_where_they_were_asked_for(model: Path, tmp_path: Path) -> None:
    folder, _ = align(make_config(tmp_path / "run", model, train={"keep_checkpoints": 3}))
    assert sorted(path.name[-1] for path in folder.checkpoints.iterdir()) == ["3", "6", "8"]
    assert [store.damage(path) for path in folder.checkpoints.iterdir()] == [[]] * 3


# --- the same numbers again ---------------------------------------------------------------------------------------


def test_the_trajectory_is_deterministic(model: Path, tmp_path: Path) -> None:
    one, _ = align(make_config(tmp_path / "one", model))
    two, _ = align(make_config(tmp_path / "two", model))
    same(one, two)


def test_another_seed_is_another_order(model: Path, tmp_path: Path) -> None:
    one, _ = align(make_config(tmp_path / "one", model))
    two, _ = align(make_config(tmp_path / "two", model, seed=6))
    assert store.read_jsonl(one.metrics)[0]["logps/chosen"] != store.read_jsonl(two.metrics)[0]["logps/chosen"]


class Killed(BaseException):
    """Not an error that anything catches, like the end of the process."""


def crash() -> None:
    raise Killed


def test_killed_twice_and_between_checkpoints(model: Path, tmp_path: Path) -> None:
    straight, _ = align(make_config(tmp_path / "straight", model))
    config = make_config(tmp_path / "killed", model)
    for at in (5, 7):
        with pytest.raises(Killed):
            align(config, reporter=Recorder(at=at, act=crash))
    resumed, _ = align(config)
    same(straight, resumed)


def test_pairs_of_a_prompt_go_into_one_batch_and_a_killed_run_goes_on(model: Path, tmp_path: Path) -> None:
    """Four prompts with four pairs of three responses each, in batches of four."""
    a, b, c, *_ = (pair.chosen_ids for pair in make_pairs(3))
    prompts_and_sides = itertools.product([pair.prompt_ids for pair in make_pairs(4)], ((a, b), (b, c), (c, a), (a, c)))
    ranked = [TokenPair(f"rows.jsonl:{i + 1}", prompt, *sides) for i, (prompt, sides) in enumerate(prompts_and_sides)]

    def run(name: str, **train_section: Any) -> tuple[Config, list[set[tuple[int, ...]]], Recorder]:
        config = make_config(tmp_path / name, model, train=train_section)
        prepare(config, ranked, make_pairs(4, seed=1, name="held"))
        folder, told = align(config)
        prompts = [{ranked[i].prompt_ids for i in row["pairs"]} for row in store.read_jsonl(folder.visits)]
        return config, prompts, told

    config, prompts, told = run("grouped")
    assert [len(of_batch) for of_batch in prompts] == [1] * 8
    assert sum("pairs of a prompt go into one batch" in line for line in told.lines) == 1
    _, mixed, told = run("mixed", group_by="none")
    assert max(len(of_batch) for of_batch in mixed) > 1
    assert not any("pairs of a prompt" in line for line in told.lines)
    killed = make_config(tmp_path / "killed", model)
    prepare(killed, ranked, make_pairs(4, seed=1, name="held"))
    for at in (5, 7):
        with pytest.raises(Killed):
            align(killed, reporter=Recorder(at=at, act=crash))
    resumed, _ = align(killed)
    same(set_up(config).folder, resumed)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(model: Path, tmp_path: Path) -> None:
    straight, _ = align(make_config(tmp_path / "straight", model))
    config = make_config(tmp_path / "killed", model)
    with pytest.raises(Killed):
        align(config, reporter=Recorder(at=7, act=crash))
    newest = set_up(config).folder.checkpoints / "step-00000006" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed, told = align(config)
    assert any("step-00000006" in line and "does not verify" in line for line in told.lines)
    same(straight, resumed)


def test_lost_rows_of_the_logs_are_said_on_resume(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "killed", model)
    with pytest.raises(Killed):
        align(config, reporter=Recorder(at=7, act=crash))
    folder = set_up(config).folder
    folder.visits.unlink()
    rows = folder.metrics.read_text().splitlines(keepends=True)
    folder.metrics.write_text("".join(rows[2:]))
    resumed, told = align(config)
    assert "train: metrics.jsonl has lost 2 of the 6 steps before" in told.lines
    assert "train: visits.jsonl has lost 6 of the 6 steps before" in told.lines
    assert [row["step"] for row in store.read_jsonl(resumed.metrics)] == [3, 4, 5, 6, 7, 8]


def test_bfloat16_resumes_bit_identically_too(model: Path, tmp_path: Path) -> None:
    engine = {"dtype": "bfloat16"}
    straight, _ = align(make_config(tmp_path / "straight", model, engine=engine))
    config = make_config(tmp_path / "killed", model, engine=engine)
    with pytest.raises(Killed):
        align(config, reporter=Recorder(at=5, act=crash))
    resumed, _ = align(config)
    same(straight, resumed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_checkpoint(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    straight, _ = align(make_config(tmp_path / "straight", model))
    config = make_config(tmp_path / "stopped", model)
    before = signal.getsignal(number)
    with pytest.raises(StopError) as caught:
        align(config, reporter=Recorder(at=4, act=lambda: os.kill(os.getpid(), number)))
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert (set_up(config).folder.checkpoints / "step-00000004").is_dir()
    assert not set_up(config).folder.model.exists()
    resumed, told = align(config)
    assert any("goes on after step 4" in line for line in told.lines)
    same(straight, resumed)


def test_a_signal_in_the_middle_of_a_step_leaves_the_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = align(make_config(tmp_path / "straight", model, engine={"pack_tokens": 30}))
    config = make_config(tmp_path / "stopped", model, engine={"pack_tokens": 30})
    real, seen = gradient.accumulate, []

    def accumulate(*args: Any, on_pack: Any, **options: Any) -> gradient.BatchResult:
        seen.append(1)

        def packed() -> None:
            if len(seen) == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            on_pack()

        return real(*args, on_pack=packed, **options)

    with monkeypatch.context() as during:
        during.setattr(gradient, "accumulate", accumulate)
        with pytest.raises(StopError, match="stopped after step 5 of 8"):
            align(config)
    resumed, _ = align(config)
    same(straight, resumed)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from stage_runs import Recorder, align, make_config
from trimtab.errors import TrimtabError
from pathlib import Path

class Loud(Recorder):
    def track(self, description, /, **options):
        print(description, flush=True)
        return super().track(description, **options)

try:
    align(make_config(Path({out!r}), Path({model!r}), train={{"epochs": 400}}), reporter=Loud())
except TrimtabError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_sigterm_ends_a_real_process_with_143_and_a_checkpoint(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), out=str(out), model=str(model))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "training":
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    words, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert time.monotonic() - asked < 25
    assert "SIGTERM: stopped after step" in words
    newest, problems = store.newest_valid(out / "checkpoints", "step-")
    assert newest is not None
    assert problems == []
    rows = store.read_jsonl(out / "metrics.jsonl")
    assert int(newest.name.removeprefix("step-")) == rows[-1]["step"] < 1600


def test_a_second_signal_ends_the_process_at_once() -> None:
    script = (
        "import os, signal, time\n"
        "from trimtab.runtime.signals import stop_on_signal\n"
        "with stop_on_signal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.number == signal.SIGINT\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, check=False, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "stopping where nothing is lost; Ctrl-C once more ends at once\n"


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"objective": {"beta": 0.25}}, "objective.beta was 0.5 and is 0.25"),
        ({"train": {"learning_rate": 1e-3}}, "train.learning_rate was 0.005 and is 0.001"),
        ({"train": {"epochs": 3}}, "train.epochs was 2.0 and is 3.0"),
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"adapter": LORA}, "adapter.kind was none and is lora"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(
    model: Path, tmp_path: Path, sections: dict[str, Any], named: str
) -> None:
    with pytest.raises(Killed):
        align(make_config(tmp_path / "run", model), reporter=Recorder(at=5, act=crash))
    with pytest.raises(ConfigError) as caught:
        align(make_config(tmp_path / "run", model, **sections))
    assert named in caught.value.message


def test_other_data_is_refused(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", model)
    with pytest.raises(Killed):
        align(config, reporter=Recorder(at=5, act=crash))
    prepare(config, make_pairs(16, seed=9), make_pairs(4, seed=10))
    with pytest.raises(ConfigError, match="data was"):
        align(config)


def test_what_changes_only_cost_may_change_on_resume(model: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        align(make_config(tmp_path / "run", model), reporter=Recorder(at=5, act=crash))
    changed = make_config(tmp_path / "run", model, train={"save_every": 1}, engine={"screening": "on"})
    folder, _ = align(changed)
    assert len(store.read_jsonl(folder.metrics)) == 8


def test_a_finished_stage_is_skipped(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", model)
    folder, _ = align(config)
    stamp = (folder.model / "model.safetensors").stat().st_mtime_ns
    _, told = align(config)
    assert "training" not in told.tracked
    assert "train: this model is trained already" in told.lines
    assert (folder.model / "model.safetensors").stat().st_mtime_ns == stamp


def test_stages_out_of_order_name_the_one_that_is_missing(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", model)
    with pytest.raises(ConfigError) as caught:
        train.main(set_up(config), reporter=Recorder())
    assert "trimtab prepare" in caught.value.remedy
    prepare(config, make_pairs(4))
    with pytest.raises(ConfigError) as caught:
        train.main(set_up(config), reporter=Recorder())
    assert "trimtab reference" in caught.value.remedy


# --- guards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [{"kind": "none"}, DROPOUT], ids=["full", "lora-dropout"])
def test_the_step_zero_guard_finds_the_reference_of_another_model(
    model: Path, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    config = make_config(tmp_path / "run", model, adapter=adapter)
    folder = prepare(config, pairs := make_pairs(16), heldout := make_pairs(4, seed=1))
    other = models.load(str(write_model(tmp_path / "other", seed=1)), dtype="float32", device="cpu")
    what = cache.missing(cache.Reference({}), [*pairs, *heldout])
    cache.compute(what, key=reference_key(set_up(config)), scorer=Scorer(other.model), pack_tokens=256)
    with pytest.raises(NumericsError) as caught:
        align(config)
    assert "step zero" in caught.value.message
    assert "rows.jsonl:" in caught.value.message
    for cause in ("template", "dtype", "dropout", "adapter"):
        assert cause in caught.value.remedy
    assert store.read_jsonl(folder.metrics) == []
    assert not folder.checkpoints.exists()


def test_the_step_zero_guard_lets_rounding_pass(model: Path, tmp_path: Path) -> None:
    """The cache was filled with packs of another size, so that log-ratios are not exactly zero."""
    config = make_config(tmp_path / "run", model, engine={"pack_tokens": 2000})
    prepare(config, make_pairs(16), make_pairs(4, seed=1))
    reference_stage.main(set_up(config), reporter=Recorder())
    small = make_config(tmp_path / "run", model, engine={"pack_tokens": 25})
    train.main(set_up(small), reporter=Recorder())


def spied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The state of the run that comes, for a look at its weights after an error."""
    real, seen = train.load_training, []

    def load(*args: Any, **options: Any) -> Any:
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(train, "load_training", load)
    return seen


def test_a_gradient_that_is_not_finite_stops_before_the_update(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real, clips, before = spied(monkeypatch), optim.AdamW.clip, [], {}

    def clip(self: optim.AdamW, max_norm: float) -> float:
        clips.append(1)
        if len(clips) == 3:
            before.update({name: p.detach().clone() for name, p in self.parameters.items()})
            first = next(iter(self.parameters.values()))
            assert first.grad is not None
            first.grad.view(-1)[7] = math.nan
        return real(self, max_norm)

    monkeypatch.setattr(optim.AdamW, "clip", clip)
    config = make_config(tmp_path / "run", model)
    with pytest.raises(NumericsError, match=r"step 3: the gradient is not finite .*rows\.jsonl:"):
        align(config)
    assert all(torch.equal(p, before[name]) for name, p in seen[0].optimizer.parameters.items())
    assert len(store.read_jsonl(set_up(config).folder.metrics)) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_stops_before_the_update_and_names_the_pair(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    seen, real, before, target = spied(monkeypatch), Scorer.states, {}, make_pairs(16)[6]

    def states(self: Scorer, one: Any, **options: Any) -> Any:
        out = real(self, one, **options)
        if seen and seen[0].step >= 2:
            weights = {name: weight.detach().clone() for name, weight in seen[0].optimizer.parameters.items()}
            before.setdefault(seen[0].step, weights)
            for group in one.groups:
                if group.prompt_ids == target.prompt_ids:
                    span = one.spans[one.keys.index(group.keys[-1])]
                    poison = torch.zeros_like(out.hidden_NH)
                    poison[span.rows[-1]] = value
                    return dataclasses.replace(out, hidden_NH=out.hidden_NH + poison)
        return out

    monkeypatch.setattr(Scorer, "states", states)
    config = make_config(tmp_path / "run", model, train={"save_every": 100})
    with pytest.raises(NumericsError, match=r"rows\.jsonl:7\b") as caught:
        align(config, held=0)
    assert "not updated" in caught.value.remedy
    at = seen[0].step
    assert len(store.read_jsonl(set_up(config).folder.metrics)) == at
    assert at >= 2
    assert all(torch.equal(weight, before[at][name]) for name, weight in seen[0].optimizer.parameters.items())


# --- equivalences -------------------------------------------------------------------------------------------------


def close(one: Folder, two: Folder, tolerance: float) -> None:
    a, b = weights(one), weights(two)
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_the_pack_budget_changes_rounding_only(model: Path, tmp_path: Path) -> None:
    small, _ = align(make_config(tmp_path / "small", model, engine={"pack_tokens": 25}))
    large, _ = align(make_config(tmp_path / "large", model, engine={"pack_tokens": 5000}))
    close(small, large, 2e-4)


def test_padded_and_packed_train_alike(model: Path, tmp_path: Path) -> None:
    packed, _ = align(make_config(tmp_path / "packed", model))
    padded, told = align(make_config(tmp_path / "padded", model, engine={"packed": "off"}))
    close(packed, padded, 2e-4)
    assert any("padded path, because turned off" in line for line in told.lines)


def test_screening_changes_cost_only(model: Path, tmp_path: Path) -> None:
    dense, _ = align(make_config(tmp_path / "dense", model, engine={"screening": "off"}))
    screened, _ = align(make_config(tmp_path / "screened", model, engine={"screening": "on"}))
    close(dense, screened, 2e-4)
    skipped = [row["skipped_backward"] for row in store.read_jsonl(screened.metrics)]
    assert sum(skipped) > sum(row["skipped_backward"] for row in store.read_jsonl(dense.metrics))


def test_an_out_of_memory_error_halves_the_packs_and_repeats_the_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = align(make_config(tmp_path / "plain", model, engine={"pack_tokens": 80}))
    real, calls = gradient.accumulate, []

    def accumulate(*args: Any, **options: Any) -> gradient.BatchResult:
        calls.append(options["pack_tokens"])
        result = real(*args, **options)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("after the gradients of some packs were added")
        return result

    monkeypatch.setattr(gradient, "accumulate", accumulate)
    tight, told = align(make_config(tmp_path / "tight", model, engine={"pack_tokens": 80}))
    assert calls == [80, 80, 80, *[40] * 6]
    assert any("packs of 40 tokens" in line for line in told.lines)
    close(plain, tight, 2e-4)


def test_out_of_memory_with_the_smallest_pack_is_the_end(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accumulate(*args: Any, **options: Any) -> gradient.BatchResult:
        raise torch.OutOfMemoryError("always")

    monkeypatch.setattr(gradient, "accumulate", accumulate)
    with pytest.raises(torch.OutOfMemoryError):
        align(make_config(tmp_path / "run", model))


# --- objectives as values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "dpo", "beta": 0.5},
        {"name": "aot", "beta": 0.5},
        {"name": "margin_sigmoid", "beta": 0.5, "delta_warmup": 1.0},
        {"name": "dpo_hinge", "ld_alpha": 0.5},
        {"name": "apo_hinge_softplus", "length_normalize": True},
        {"name": "apo_hinge_zero", "sft_weight": 0.1},
    ],
    ids=str,
)
def test_every_kind_of_objective_trains(model: Path, tmp_path: Path, objective: dict[str, Any]) -> None:
    config = configuration.to_json(make_config(tmp_path / "run", model)) | {"objective": objective}
    folder, told = align(configuration.resolve(config))
    rows = store.read_jsonl(folder.metrics)
    assert len(rows) == 8
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert not any("screening" in line for line in told.lines)


@pytest.mark.parametrize("name", ["simpo", "repo", "sft"])
def test_an_objective_without_reference_needs_no_reference_stage(model: Path, tmp_path: Path, name: str) -> None:
    tree = configuration.to_json(make_config(tmp_path / "run", model)) | {"objective": {"name": name}}
    folder, told = align(configuration.resolve(tree))
    assert f"reference: {name} needs none" in told.lines
    assert not folder.reference.exists()
    rows = store.read_jsonl(folder.metrics)
    assert "pull/chosen" not in rows[0]
    assert store.read_json(folder.heldout)["before"]["reward_gap"] != 0.0


def test_notices_before_the_first_step(model: Path, tmp_path: Path) -> None:
    _, told = align(make_config(tmp_path / "run", model, objective={"beta": 0.01}, engine={"screening": "on"}))
    assert any("linear regime" in line for line in told.lines)
    assert any("prefix-shared packs, up to 64 tokens each, float32 on cpu, 1 thread," in line for line in told.lines)
    _, told = align(make_config(tmp_path / "two", model, adapter=DROPOUT, engine={"screening": "on"}))
    assert any("screening is off: with adapter dropout" in line for line in told.lines)
    tree = configuration.to_json(make_config(tmp_path / "three", model, engine={"screening": "on"}))
    _, told = align(configuration.resolve(tree | {"objective": {"name": "dpo"}}))
    assert any("screening is off: dpo has no dead zone" in line for line in told.lines)
    _, told = align(configuration.resolve(tree | {"objective": {"name": "sft"}, "out": str(tmp_path / "four")}))
    said = next(line for line in told.lines if "screening is off" in line)
    assert "keeps its gradient" not in said, "the rejected response of sft has none"


# --- the plan -----------------------------------------------------------------------------------------------------


def test_the_plan_is_what_then_happens(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", model, train={"epochs": 1.5, "batch_pairs": 5, "warmup": 0.3})
    pairs = make_pairs(16)
    planned = training_plan(set_up(config), pairs)
    folder, _ = align(config)
    rows = store.read_jsonl(folder.metrics)
    assert planned.steps == len(rows) == 6
    assert planned.pairs_seen == 16 * rows[-1]["epoch"] == 24
    beginnings = [
        {
            (pairs[i].prompt_ids, (pairs[i].prompt_ids + ids)[:n])
            for i in row["pairs"]
            for ids in (pairs[i].chosen_ids, pairs[i].rejected_ids)
            for n in range(1, len(pairs[i].prompt_ids + ids) + 1)
        }
        for row in store.read_jsonl(folder.visits)[:4]
    ]
    assert planned.tokens_per_epoch == sum(map(len, beginnings))
    assert planned.largest_batch_tokens == max(map(len, beginnings))
    assert planned.group_by == "none"
    assert planned.warmup_steps == 2
    assert max(row["learning_rate"] for row in rows) == planned.learning_rate == 5e-3
    assert rows.index(max(rows, key=lambda row: row["learning_rate"])) == planned.warmup_steps


def test_learning_rates_when_none_is_said(model: Path, tmp_path: Path) -> None:
    tree = configuration.to_json(make_config(tmp_path / "run", model))
    tree["train"]["learning_rate"] = None
    assert training_plan(set_up(configuration.resolve(tree)), make_pairs(4)).learning_rate == 1e-5
    tree["adapter"]["kind"] = "lora"
    assert training_plan(set_up(configuration.resolve(tree)), make_pairs(4)).learning_rate == 1e-4


# --- a model and data that no one here made -----------------------------------------------------------------------


@pytest.mark.needs_shared
@pytest.mark.parametrize("adapter", [{"kind": "none"}, LORA], ids=["full", "lora"])
def test_a_real_model_on_real_pairs(shared_data: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    from trimtab.stages import prepare as prepare_stage

    (source,) = (shared_data / "pairs" / "ukp-convarg1-strict").glob("*.jsonl*")
    config = configuration.resolve(
        {
            "model": str(shared_data / "models" / "stories260K"),
            "data": {"source": str(source), "limit": 60, "sample": "first", "max_rejected": 1.0,
                     "max_prompt_tokens": 96, "max_response_tokens": 96},
            "adapter": adapter,
            "train": {"max_steps": 6, "batch_pairs": 8, "learning_rate": 1e-3},
            "engine": {"threads": 1, "device": "cpu"},
            "out": str(tmp_path / "run"),
        }
    )  # fmt: skip
    prepare_stage.main(set_up(config), reporter=Recorder())
    folder, _ = align(config)
    rows = store.read_jsonl(folder.metrics)
    assert len(rows) == 6
    assert rows[0]["loss"] == pytest.approx(2.0, abs=1e-3)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert models.load(str(folder.model), dtype="float32", device="cpu").model is not None
