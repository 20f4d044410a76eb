"""NaN and Inf put into a logit, a loss, a gradient, a weight, a reference row: the step is not taken, the pairs at
fault are named, what was trained before is committed and goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children  # noqa: F401  # its import makes the stage tests' modules known
import pytest
import torch
from safetensors.torch import load_file, save_file

from stage_runs import Recorder, align, make_config, make_pairs, prepare, weights, without_clock, write_model
from trimtab import cli, store, windtunnel
from trimtab.engine import evaluation, models, optim
from trimtab.engine import reference as cache
from trimtab.engine.order import Order
from trimtab.engine.scoring import Scorer
from trimtab.errors import NumericsError, StoreError
from trimtab.objectives import ApoHingeZero, LogRatios, make
from trimtab.records import TokenPair
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_identity import reference_key
from trimtab.stages import reference as reference_stage
from trimtab.stages import train

AFTER = 4  # updates before the fault; the last checkpoint of its own is that of step 3
PAIRS = make_pairs(16)
BATCH = [PAIRS[i] for i in Order(16, 4, 2, 5, None).batch(AFTER).indices]
TARGET = BATCH[1]
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}

Fault = Callable[[pytest.MonkeyPatch, "Stage", float], None]


class Stage:
    """The run's work, and its weights from the moment in which the fault was switched on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.armed = False
        self.before: dict[str, torch.Tensor] = {}
        self.work: Any = None
        real = train.load_training

        def load(*arguments: Any, **options: Any) -> Any:
            self.work = real(*arguments, **options)
            return self.work

        monkeypatch.setattr(train, "load_training", load)

    def arm(self) -> None:
        self.armed = True
        self.before = {name: p.detach().clone() for name, p in self.work.optimizer.parameters.items()}

    @property
    def unchanged(self) -> bool:
        now = self.work.optimizer.parameters
        return all(torch.equal(held.nan_to_num(7.0), now[name].nan_to_num(7.0)) for name, held in self.before.items())


def _rows_of_target(one: Any) -> list[Any]:
    return [
        next(span for span in one.spans if span.key == group.keys[-1])
        for group in one.groups
        if group.prompt_ids == TARGET.prompt_ids
    ]


def in_a_logit(monkeypatch: pytest.MonkeyPatch, stage: Stage, value: float) -> None:
    real = Scorer.states

    def states(self: Scorer, one: Any, **options: Any) -> Any:
        out = real(self, one, **options)
        if not stage.armed:
            return out
        poison = torch.zeros_like(out.hidden_NH)
        for span in _rows_of_target(one):
            poison[span.rows[-1]] = value
        return dataclasses.replace(out, hidden_NH=out.hidden_NH + poison)

    monkeypatch.setattr(Scorer, "states", states)


def in_the_gradient_of_a_pack(monkeypatch: pytest.MonkeyPatch, stage: Stage, value: float) -> None:
    """The forward pass is in order; what comes back through one response's states is not."""
    real = Scorer.states

    def states(self: Scorer, one: Any, **options: Any) -> Any:
        out = real(self, one, **options)
        spans = _rows_of_target(one)
        if stage.armed and spans and out.hidden_NH.requires_grad:

            def spoil(gradient: torch.Tensor) -> torch.Tensor:
                spoilt = gradient.clone()
                spoilt[spans[0].rows[-1], 0] = value
                return spoilt

            out.hidden_NH.register_hook(spoil)  # type: ignore[no-untyped-call]  # torch has no hints for it
        return out

    monkeypatch.setattr(Scorer, "states", states)


def in_a_loss(monkeypatch: pytest.MonkeyPatch, stage: Stage, value: float) -> None:
    real = ApoHingeZero.loss

    def loss(self: ApoHingeZero, log_ratios: LogRatios) -> torch.Tensor:
        out = real(self, log_ratios)
        if not stage.armed:
            return out
        chosen, _ = (row.double().sum().float() for row in stage.work.reference.of_pairs([TARGET]))
        return torch.where(log_ratios.reference_chosen == chosen, torch.tensor(value), out)

    monkeypatch.setattr(ApoHingeZero, "loss", loss)


def in_a_reference_row(monkeypatch: pytest.MonkeyPatch, stage: Stage, value: float) -> None:
    """-Inf would give the chosen response a log-ratio of Inf, a loss of 0, and no sign of it anywhere."""
    real = cache.Reference.tokens

    def tokens(self: cache.Reference, prompt_ids: Any, response_ids: Any) -> torch.Tensor:
        row = real(self, prompt_ids, response_ids)
        here = stage.armed and (prompt_ids, response_ids) == (TARGET.prompt_ids, TARGET.chosen_ids)
        return torch.full_like(row, value) if here else row

    monkeypatch.setattr(cache.Reference, "tokens", tokens)


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    """Runs that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_HOME", str(tmp_path_factory.mktemp("home")))
        out = tmp_path_factory.mktemp("whole")
        return {
            "none": align(make_config(out / "full", tiny))[0],
            "lora": align(make_config(out / "lora", tiny, adapter=LORA))[0],
        }


@pytest.mark.parametrize(
    ("fault", "value", "adapter", "said"),
    [
        (in_a_logit, math.nan, {"kind": "none"}, "a log-probability is not finite"),
        (in_a_logit, math.inf, {"kind": "none"}, "a log-probability is not finite"),
        (in_a_loss, math.nan, {"kind": "none"}, "loss is not finite"),
        (in_a_loss, math.inf, {"kind": "none"}, "loss is not finite"),
        (in_the_gradient_of_a_pack, math.nan, {"kind": "none"}, "the gradient is not finite"),
        (in_the_gradient_of_a_pack, math.inf, LORA, "the gradient is not finite"),
        (in_a_reference_row, math.nan, {"kind": "none"}, "the reference's log-probability is not finite"),
        (in_a_reference_row, -math.inf, {"kind": "none"}, "the reference's log-probability is not finite"),
    ],
    ids=lambda told: told.__name__ if callable(told) else str(told) if isinstance(told, float) else "",
)
def test_the_step_is_not_taken_the_pair_is_named_and_the_run_goes_on(
    tiny: Path, place: Path, whole: dict[str, Folder], fault: Fault, value: float, adapter: dict[str, Any], said: str
) -> None:
    config = make_config(place / "run", tiny, adapter=adapter)
    folder = set_up(config).folder
    with pytest.MonkeyPatch.context() as patch:
        stage = Stage(patch)
        fault(patch, stage, value)
        with pytest.raises(NumericsError) as caught:
            align(config, reporter=Recorder(at=AFTER, act=stage.arm))
    message = caught.value.message
    assert f"step {AFTER + 1}: {said} for {TARGET.id}" in message
    assert not any(pair.id in message.replace(TARGET.id, "") for pair in BATCH)  # that one, not the whole batch
    assert caught.value.exit_code == 1
    assert "not updated" in caught.value.remedy
    assert "last checkpoint" in caught.value.remedy
    assert stage.unchanged
    assert len(store.read_jsonl(folder.metrics)) == AFTER
    newest, damaged = store.newest_valid(folder.checkpoints, "step-")
    assert newest is not None
    assert (newest.name, damaged) == (f"step-{AFTER:08d}", [])
    again, told = align(config)
    assert any(f"goes on after step {AFTER}" in line for line in told.lines)
    plain = whole[adapter["kind"]]
    expected, found = weights(plain), weights(again)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert without_clock(store.read_jsonl(plain.metrics)) == without_clock(store.read_jsonl(again.metrics))


def test_a_fault_that_does_not_come_again_names_the_batch_and_says_so(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, real = Stage(monkeypatch), optim.AdamW.clip

    def clip(self: optim.AdamW, max_norm: float) -> float:
        if stage.armed:
            gradient = next(iter(self.parameters.values())).grad
            assert gradient is not None
            gradient.view(-1)[7] = math.nan
        return real(self, max_norm)

    monkeypatch.setattr(optim.AdamW, "clip", clip)
    with pytest.raises(NumericsError) as caught:
        align(make_config(place / "run", tiny), reporter=Recorder(at=AFTER, act=stage.arm))
    assert "though that of each pair alone is" in caught.value.message
    assert "model.embed_tokens.weight" in caught.value.message
    assert all(pair.id in caught.value.message for pair in BATCH)
    assert "memory is at fault" in caught.value.remedy
    assert stage.unchanged


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_embedding_row_names_the_pairs_with_that_token_and_the_tensor(
    place: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """A head of its own: otherwise one row of a tied one spoils every logit. A step later: AFTER is a milestone."""
    untied = write_model(place / "untied", tie_word_embeddings=False)
    batch = [PAIRS[i] for i in Order(16, 4, 2, 5, None).batch(AFTER + 1).indices]
    token = batch[1].chosen_ids[0]
    having = [p for p in batch if token in (*p.prompt_ids, *p.chosen_ids[:-1], *p.rejected_ids[:-1])]
    assert 0 < len(having) < len(batch)
    stage = Stage(monkeypatch)

    def arm() -> None:
        with torch.no_grad():
            stage.work.model.get_input_embeddings().weight[token] = value
        stage.arm()

    config = make_config(place / "run", untied)
    with pytest.raises(NumericsError) as caught:
        align(config, reporter=Recorder(at=AFTER + 1, act=arm))
    message = caught.value.message
    assert all((pair.id in message) == (pair in having) for pair in batch)
    assert "model.embed_tokens.weight" in message
    assert stage.unchanged
    newest, _ = store.newest_valid(set_up(config).folder.checkpoints, "step-")
    assert newest is not None
    assert newest.name == "step-00000003"  # broken weights are no checkpoint


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (0, r"step 8: what its update left: model\.norm\.weight is"),
        (4, r"held\.jsonl:1; nor .* of model\.norm\.weight"),
    ],
)
def test_no_checkpoint_and_no_model_holds_a_number_that_is_not_finite(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, held: int, said: str
) -> None:
    """The last update breaks a weight: no step comes after it that would show it."""
    stage = Stage(monkeypatch)

    def arm() -> None:
        with torch.no_grad():
            stage.work.optimizer.parameters["model.norm.weight"][3] = math.inf

    config = make_config(place / "run", tiny)
    folder = set_up(config).folder
    with pytest.raises(NumericsError, match=said):
        align(config, held=held, reporter=Recorder(at=8, act=arm))
    assert not folder.model.exists()
    newest, damaged = store.newest_valid(folder.checkpoints, "step-")
    assert newest is not None
    assert (newest.name, damaged) == ("step-00000006", [])
    assert not list(folder.checkpoints.glob(".tmp-*"))


# --- what is read from disk -----------------------------------------------------------------------------------------


def spoilt(model: Path, folder: Path, tensor: str, value: float) -> Path:
    """A copy of a model's folder with one number of one tensor replaced."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    held = load_file(folder / "model.safetensors")
    held[tensor].view(-1)[5] = value
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_weight_file_is_refused_by_the_tensor(tiny: Path, place: Path, value: float) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    model = spoilt(tiny, place / "model", name, value)
    with pytest.raises(NumericsError) as caught:
        models.load(str(model), dtype="float32", device="cpu")
    assert f"{model}: the weights of this model: {name} is not finite" in caught.value.message
    assert "Download or save the model again" in caught.value.remedy


def test_an_adapter_is_refused_by_the_tensor(tiny: Path, place: Path) -> None:
    folder, _ = align(make_config(place / "run", tiny, adapter=LORA, train={"max_steps": 1}))
    file = folder.model / "adapter_model.safetensors"
    held = load_file(file)
    name = next(name for name in held if "lora_B" in name)
    held[name].view(-1)[0] = math.nan
    save_file(held, file, metadata={"format": "pt"})
    with pytest.raises(NumericsError, match=r"lora_B\.default\.weight is not finite"):
        models.load(str(folder.model), dtype="float32", device="cpu")


def test_the_command_says_one_thing_and_exits_with_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = spoilt(windtunnel.model_folder(), place / "model", "model.norm.weight", math.nan)
    row = {"prompt": "name a colour", "chosen": "red", "rejected": "seven"}
    (place / "rows.jsonl").write_text("".join(json.dumps(row | {"chosen": c}) + "\n" for c in ("red", "blue", "green")))
    words = ["run", "--model", str(model), "--data", str(place / "rows.jsonl"), "--out", str(place / "run"),
             "--data.holdout", "0", "--data.max-rejected", "1", "--engine.device", "cpu"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert "model.norm.weight is not finite" in said
    assert "→ Download or save the model again" in said
    assert "Traceback" not in said


def test_a_cached_row_stops_the_run_before_its_first_step_and_is_computed_again(tiny: Path, place: Path) -> None:
    config = make_config(place / "run", tiny)
    folder = prepare(config, PAIRS, make_pairs(4, seed=1, name="held"))
    reference_stage.main(set_up(config), reporter=Recorder())
    key = reference_key(set_up(config))
    rows = dict(cache.read(key, PAIRS).rows)
    name = cache.row_digest(TARGET.prompt_ids, TARGET.rejected_ids)
    rows[name] = torch.full_like(rows[name], math.nan)
    (shard,) = key.folder.glob("shard-*")
    store.remove(shard)
    cache._append(key, rows)  # as a writer without the check would have left it: its manifest verifies
    with pytest.raises(StoreError) as caught:
        train.main(set_up(config), reporter=Recorder())
    assert f"log-probabilities are not finite for {TARGET.id}" in caught.value.message
    assert "trimtab reference" in caught.value.remedy
    assert caught.value.exit_code == 1
    assert not folder.checkpoints.exists()
    _, told = align(config)
    assert any(f"not finite for {TARGET.id}; its rows are computed again" in line for line in told.lines)
    assert len(store.read_jsonl(folder.metrics)) == 8


def test_rewards_of_held_out_pairs_are_refused_by_the_pair(place: Path) -> None:
    untied = write_model(place / "untied", tie_word_embeddings=False)
    model = models.load(str(untied), dtype="float32", device="cpu").model
    pairs = [TokenPair(f"held:{i}", (2, 3, 4 + i), (9, 10), (11, 12)) for i in range(3)]
    with torch.no_grad():
        scorer = Scorer(model)
        evaluation.score(scorer, pairs, objective=make("dpo"), pack_tokens=64)
        model.get_input_embeddings().weight[5] = math.nan
        with pytest.raises(
            NumericsError, match=r"not finite for held:1; nor are the weights of model\.embed_tokens\.weight"
        ):
            evaluation.score(scorer, pairs, objective=make("dpo"), pack_tokens=64)
