"""No key is accepted and ignored: each is changed in turn, and something that a user can observe has to change.

A scene runs the real code on something small, with fakes at its one-method seams, and returns what came of it: files,
requests, options handed on, a refusal. No digest of the configuration is looked at: it changes with a dead key too.

    test_a_key_acts                    base and changed differ
    test_a_key_that_is_ignored_is_seen the code reads the base's value whatever is set: they do not, so the test bites
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from judged_runs import compared, longer, texts
from scripted_server import Action, ScriptedServer, Seen, prose
from stage_runs import align, make_config, write_model
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.cli import pipeline
from trimtab.commands import launch
from trimtab.config import Config
from trimtab.engine import checkpoint, gguf_model, identity, memory, optim
from trimtab.engine.processes import ALONE
from trimtab.errors import TrimtabError
from trimtab.judging.judges import Submission
from trimtab.judging.verdict_cache import VerdictCache
from trimtab.progress import SilentReporter
from trimtab.records import Message, TokenPair
from trimtab.runtime import answering, set_up, templated_model
from trimtab.runtime.judges.verifier_judge import VerifierJudge
from trimtab.runtime.model_loading import require_extras
from trimtab.runtime.signals import Stop
from trimtab.runtime.trackers import trackers
from trimtab.runtime.transcript import TurnAnswer
from trimtab.sampling import Sampled
from trimtab.stages import generate, judge, prepare

Tree = Mapping[str, Any]
Patch = pytest.MonkeyPatch
CLOCK = {"seconds", "step_seconds", "tokens_per_second", "peak_memory_bytes"}


# --- scenes: a configuration in, what can be observe out; the current folder and the caches are fresh ---------------


def set_up_only(config: Config, patch: Patch) -> object:
    """What a run is set up with; the Hub and the model's shape are looked up by fakes."""
    patch.delenv("HF_HUB_OFFLINE")
    patch.setattr(identity, "folder_of", lambda name, **options: Path(f"{name} {sorted(options.items())}"))
    patch.setattr(gguf_model, "fetch", lambda name, file, **options: Path(f"{name} {file} {sorted(options.items())}"))
    patch.setattr(gguf_model, "plain_folder", lambda path: path)
    patch.setattr(templated_model, "with_template", lambda folder, name, **_: Path(f"{folder} {name}"))
    patch.setattr(memory.Shape, "of_folder", lambda _folder, **options: options)
    setup = set_up(config)
    pairs = [TokenPair(f"{n}", (n % 2,) * 90, (n,), (n + 1,)) for n in range(12)]
    if setup.objective.is_unpaired:
        pairs = [TokenPair(f"{n}", (n,), *((n,), ())[:: 1 if n % 2 else -1]) for n in range(1, 13)]
    order = setup.training_order(pairs)
    return [
        [str(single.folder.root) for single in setup.each_seed()],
        [order.batch(step).indices for step in range(order.steps)],
        repr(setup.objective),
        setup.peak_learning_rate,
        [str(setup.model_folder), setup.memory_shape, str(setup.reference_folder)],
        [str(setup.device), str(setup.dtype), setup.threads],
        [setup.texts.folder, setup.texts.offline],
    ]


def rows(config: Config, _patch: Patch) -> object:
    """The data folder that the stage `prepare` makes of a file of pairs."""
    for name, answer in (("rows.jsonl", "yes"), ("other.jsonl", "no")):
        pairs: list[dict[str, str]] = [
            {"prompt": f"Is {n} even? " * (1 + n), "chosen": f"{answer} {n} " * (1 + n), "rejected": f"maybe {n}"}
            for n in range(12)
        ]
        pairs += [{"prompt": "Well?", "chosen": "", "rejected": "x"}]
        pairs = [row | {"better": row["rejected"], "worse": row["chosen"]} for row in pairs]
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in pairs))
    ranked = [
        {"prompt": f"Is {n} even?", "completions": ["yes", "no", "maybe"], "scores": [3, 1, 0]} for n in range(12)
    ]
    Path("ranked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ranked))
    prepare.main(set_up(config), reporter=SilentReporter())
    return contents(f"{config.out}/data")


def world(config: Config, patch: Patch) -> object:
    """The data folder of the embedded world; its model's answers are made up from what it is asked."""

    def answer_turns(_folder: Path, asked: Sequence[tuple[str, ...]], **options: Any) -> list[list[TurnAnswer]]:
        salt = (options["temperatures"][0], options["decoding"].seed)
        texts = (" ".join(sorted(turns[0].split(), key=lambda word: _hash(word, salt))) for turns in asked)
        return [[TurnAnswer(text[: 10 + int(_hash(text, salt), 16) % 30], 4, True)] for text in texts]

    patch.setattr(prepare, "answer_turns", answer_turns)
    prepare.main(set_up(config), reporter=SilentReporter())
    return contents(f"{config.out}/data")


def training(config: Config, patch: Patch) -> object:
    """What a training of three steps says, saves on its way and leaves."""
    require_extras(config)
    saves: list[tuple[int, int]] = []
    real_save = checkpoint.save

    def save(*arguments: Any, **options: Any) -> Path:
        saves.append((options["step"], options["keep"]))
        return real_save(*arguments, **options)

    patch.setattr(checkpoint, "save", save)
    folder, recorder = align(config, n=6, held=4)
    metrics = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [
        recorder.lines,
        saves,
        [{key: value for key, value in row.items() if key not in CLOCK} for row in metrics],
        sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*")),
        {name: digest for name, digest in contents(str(folder.model)).items() if name != "README.md"},
        json.loads(folder.selection.read_text()),
    ]


def looking_on(config: Config, _patch: Patch) -> object:
    """Whom a run tells of itself, and what it says first."""
    events = [tracker.first_event for tracker in trackers(set_up(config), reporter=SilentReporter())]
    return [{name: value for name, value in event.items() if name not in ("config", "folder")} for event in events]


def several(config: Config, patch: Patch) -> object:
    """What a launcher is asked for, how long its processes may wait for each other, and what they divide."""
    calls: list[object] = []

    class Recorded(optim.AdamW):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            calls.append(options["shard"])
            super().__init__(*arguments, **options)

    patch.setattr(launch, "_run", lambda command: calls.append(command[0]))
    patch.setattr(pipeline, "join", lambda **options: calls.append(options) or ALONE)
    patch.setattr(optim, "AdamW", Recorded)
    with suppress(SystemExit), pipeline._processes(config, quiet=True):
        align(config, n=6, held=4)
    return calls


def answering_prompts(config: Config, patch: Patch) -> object:
    """What the decoder, or the client of a server, is told, and the answers and the oracle's verdicts on them."""
    for name in ("prompts.json", "other.json"):
        prompts = [{"instruction": f"{name} {n}", "output": "published"} for n in range(3)]
        Path(name).write_text(json.dumps(prompts))
    calls: list[dict[str, Any]] = []

    def sample(_model: Any, prompts: Sequence[Sequence[int]], *, on_done: Callable[..., None], **options: Any) -> None:
        calls.append({name: option for name, option in options.items() if name != "on_step"})
        for index, ids in enumerate(prompts):
            on_done(index, Sampled(tuple(ids[: 2 + (index + len(calls)) % 5]), finished=True))

    def remote_turn(endpoint: Any, due: Mapping[int, Any], *, on_missing: Callable[..., None], **options: Any) -> None:
        numbers = {name: option for name, option in options.items() if isinstance(option, int | float | dict)}
        calls.append(numbers | {"model": endpoint.model, "url": endpoint.base_url})
        for number in list(due):
            on_missing(number, "nobody is there")

    patch.setattr(answering, "sample", sample)
    patch.setattr(answering, "remote_turn", remote_turn)
    shutil.copytree(windtunnel.model_folder(), Path(config.out) / "model")
    setup = set_up(config)
    generate.main(setup, reporter=SilentReporter())
    if config.judge.kind == "oracle":
        judge.main(setup, reporter=SilentReporter())
    return [repr(calls), contents(f"{config.out}/answers"), contents(f"{config.out}/verdicts")]


def judging(config: Config, _patch: Patch, *, wait: float = 0.0, first_wait: float = 0.0) -> object:
    """What a judge behind a server is asked, salt it is asked, and what is made of its replies; one has no letter."""

    def reply(seen: Seen) -> Action:
        if "do 1\n" in seen.text:
            return prose()
        action = longer(seen)
        seconds = first_wait if "do 0\n" in seen.text and seen.attempt == 0 else wait
        return Action(action.code, action.body, wait=seconds)

    with ScriptedServer(reply) as server:
        example = compared(Path.cwd(), server.url, n=4, published=False)
        tree = configuration.to_json(config)
        tree["benchmark"]["name"] = example.benchmark.name
        config = configuration.resolve(tree | {"base_url": server.url, "out": example.out})
        setup = set_up(config)
        judge.main(setup, reporter=SilentReporter())
        try:
            judge.refuse_if_incomplete(setup)
            complete = "accepted"
        except TrimtabError as error:
            complete = str(error)
        about = json.loads(setup.folder.judge("prompts").read_text())
        return [
            sorted(json.dumps(seen.body, sort_keys=True) for seen in server.requests if seen.attempt == 0),
            max(seen.attempt for seen in server.requests if "do 0\n" in seen.text),
            wait and server.max_concurrency > 1,
            [about["cost_usd"], about["n_missing"], complete],
            setup.folder.verdicts("prompts").read_text(),
        ]


def contents(folder: str) -> dict[str, str]:
    """The digest of each file below a folder; manifests tell of the others."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in paths}


def _hash(word: str, salt: object) -> str:
    return hashlib.sha256(f"{word}{salt}".encode()).hexdigest()


# --- the keys ---------------------------------------------------------------------------------------------------------

Scene = Callable[[Config, Patch], object]


def verifying(config: Config, _patch: Patch) -> object:
    """Scores of a program that takes its time."""
    Path("check.py").write_text("import time\ndef score(prompt, answer):\n    time.sleep(0.5)\n    return 1.0\n")
    with store.database(Path("verdicts.sqlite")) as connection:
        program = VerifierJudge(config, VerdictCache(connection), rows={}, reporter=SilentReporter(), stop=Stop())
        return program.scores([Submission((Message("user", "Why?"),), "So.")])


OTHER_TEXTS = "other texts"  # a folder with another judge prompt

ROWS: Tree = {"model": "windtunnel", "data": {"source": "rows.jsonl", "max_rejected": 1.0}, "out": "run"}
WORLD: Tree = {"model": "windtunnel", "data": "windtunnel", "windtunnel": {"pairs": 16}, "out": "run"}
HUB: Tree = {
    "model": "owner/name", "data": "rows.jsonl", "train": {"batch_pairs": 4}, "engine": {"threads": 1}, "out": "run",
}  # fmt: skip
LORA: Tree = {"adapter": {"kind": "lora", "rank": 4}}
LOCAL: Tree = {
    "model": "windtunnel", "data": "rows.jsonl", "benchmark": "prompts.json", "out": "run", "engine": {"threads": 1},
}  # fmt: skip
ORACLE: Tree = {**LOCAL, "benchmark": "windtunnel", "judge": "oracle", "windtunnel": {"prompts": 16}}
SERVER_SECTION = {"sampler": "openai", "served_as": "aligned", "unaligned_served_as": "base"}
SERVER: Tree = {**LOCAL, "generate": SERVER_SECTION, "base_url": "http://127.0.0.1:9/v1"}
JUDGE_SECTION = {"name": "openai:judge", "canaries": 0, "input_price": 1.0, "output_price": 1.0}
JUDGE: Tree = {**LOCAL, "benchmark": {"name": "prompts.json", "dir": "texts"}, "judge": JUDGE_SECTION}


@dataclass(frozen=True)
class Case:
    """One key's other value, in which scene it shows, and on which base. `also` goes with the change."""

    scene: Scene
    base: Tree
    value: Any
    also: Tree = field(default_factory=dict)


def _objective(name: str, value: Any) -> Case:
    return Case(set_up_only, {**HUB, "objective": name}, value)


CASES = {
    "seed": Case(set_up_only, HUB, 1),
    "seeds": Case(set_up_only, HUB, 2),
    "out": Case(set_up_only, HUB, "elsewhere"),
    "offline": Case(set_up_only, HUB, True),
    "base_url": Case(answering_prompts, SERVER, "http://127.0.0.1:10/v1"),
    "model.name": Case(set_up_only, HUB, "owner/other"),
    "model.reference": Case(set_up_only, HUB, "owner/reference"),
    "model.template": Case(set_up_only, HUB, "plain"),
    "model.gguf": Case(set_up_only, HUB, "model-Q4_K_M.gguf"),
    "model.revision": Case(set_up_only, HUB, "main"),
    "model.trust_remote_code": Case(set_up_only, HUB, True),
    "data.source": Case(rows, ROWS, "other.jsonl"),
    "data.split": Case(rows, ROWS, "test"),
    "data.columns": Case(rows, ROWS, {"prompt": "prompt", "chosen": "better", "rejected": "worse"}),
    "data.pairs": Case(rows, {**ROWS, "data": {**ROWS["data"], "source": "ranked.jsonl"}}, "adjacent"),
    "data.least_gap": Case(rows, {**ROWS, "data": {**ROWS["data"], "source": "ranked.jsonl"}}, 2.0),
    "data.limit": Case(rows, ROWS, 5),
    "data.sample": Case(rows, {**ROWS, "data": {**ROWS["data"], "limit": 5}}, "first"),
    "data.seed": Case(rows, {**ROWS, "data": {**ROWS["data"], "limit": 5}}, 1),
    "data.eval": Case(rows, ROWS, "other.jsonl"),
    "data.eval_split": Case(rows, {**ROWS, "data": {**ROWS["data"], "eval": "other.jsonl"}}, "test"),
    "data.holdout": Case(rows, ROWS, 0.6),
    "data.max_prompt_tokens": Case(rows, ROWS, 16),
    "data.max_response_tokens": Case(rows, ROWS, 4),
    "data.min_response_tokens": Case(rows, {**ROWS, "data": {**ROWS["data"], "max_response_tokens": 4}}, 5),
    "data.max_rejected": Case(rows, ROWS, 0.0),
    "objective.name": _objective("dpo", "ipo"),
    "objective.beta": _objective("dpo", 0.3),
    "objective.margin": _objective("apo_hinge_zero", 2.0),
    "objective.temperature": _objective("apo_hinge_softplus", 2.0),
    "objective.delta": _objective("margin_sigmoid", 0.3),
    "objective.delta_warmup": _objective("margin_sigmoid", 0.5),
    "objective.penalty": _objective("dpop", 2.0),
    "objective.label_smoothing": _objective("dpo", 0.1),
    "objective.gamma": _objective("simpo", 0.3),
    "objective.length_normalize": _objective("dpo", True),
    "objective.ld_alpha": _objective("dpo", 0.5),
    "objective.sft_weight": _objective("dpo", 0.1),
    "objective.alpha": _objective("odpo", 2.0),
    "objective.weight_cap": _objective("wpo", 1.0),
    "objective.desirable_weight": _objective("apo_hinge_zero_unpaired", 2.0),
    "objective.undesirable_weight": _objective("apo_hinge_zero_unpaired", 2.0),
    "adapter.kind": Case(training, {}, "lora"),
    "adapter.rank": Case(training, LORA, 2),
    "adapter.alpha": Case(training, LORA, 8.0),
    "adapter.dropout": Case(training, LORA, 0.5),
    "adapter.targets": Case(training, LORA, "q_proj"),
    "adapter.dora": Case(training, LORA, True),
    "adapter.quantize": Case(training, LORA, "nf4"),
    "track.to": Case(looking_on, ROWS, "tensorboard,wandb"),
    "track.project": Case(looking_on, {**ROWS, "track": "wandb"}, "mine"),
    "train.epochs": Case(training, {}, 2.0),
    "train.max_steps": Case(training, {}, 2),
    "train.max_minutes": Case(training, {}, 1e-9),  # the first step is over it
    "train.batch_pairs": Case(training, {}, 3),
    "train.group_by": Case(set_up_only, HUB, "none"),
    "train.learning_rate": Case(training, {}, 1e-3),
    "train.schedule": Case(training, {}, "constant"),
    "train.warmup": Case(training, {}, 0.9),
    "train.weight_decay": Case(training, {}, 0.5),
    "train.max_grad_norm": Case(training, {}, 1e-3),
    "train.optimizer": Case(training, {}, "adamw_8bit"),
    "train.freeze_embeddings": Case(training, {}, True),
    "train.save_every": Case(training, {}, 3),
    "train.keep_checkpoints": Case(training, {}, 3),
    "select.by": Case(training, {}, "last"),
    "select.keep": Case(training, {}, True),
    "engine.device": Case(set_up_only, {**HUB, "engine": {"device": "cpu"}}, "cuda"),
    "engine.dtype": Case(training, {}, "bfloat16"),
    "engine.threads": Case(set_up_only, HUB, 2),
    "engine.processes": Case(several, {}, 2),
    "engine.shard": Case(several, {}, "optimizer"),
    "engine.timeout": Case(several, {}, 60.0),
    "engine.pack_tokens": Case(training, {}, 128),
    "engine.checkpointing": Case(training, {}, "on"),
    "engine.packed": Case(training, {}, "off"),
    "engine.screening": Case(training, {}, "off"),
    "engine.shrinking": Case(training, {}, "on"),
    "generate.sampler": Case(
        answering_prompts, LOCAL, "openai", also={"generate": SERVER_SECTION, "base_url": SERVER["base_url"]}
    ),
    "generate.base_url": Case(answering_prompts, SERVER, "http://127.0.0.1:10/v1"),
    "generate.served_as": Case(answering_prompts, SERVER, "other"),
    "generate.unaligned_served_as": Case(answering_prompts, SERVER, "other"),
    "generate.max_new_tokens": Case(answering_prompts, LOCAL, 7),
    "generate.temperature": Case(answering_prompts, LOCAL, 0.0),
    "generate.top_p": Case(answering_prompts, LOCAL, 0.9),
    "generate.repetition_penalty": Case(answering_prompts, LOCAL, 1.2),
    "generate.batch_tokens": Case(answering_prompts, LOCAL, 4096),
    "generate.seed": Case(answering_prompts, LOCAL, 1),
    "benchmark.name": Case(answering_prompts, LOCAL, "other.json"),
    "benchmark.limit": Case(answering_prompts, LOCAL, 2),
    "benchmark.dir": Case(judging, JUDGE, OTHER_TEXTS),
    "benchmark.unaligned": Case(answering_prompts, LOCAL, "off"),
    "judge.name": Case(judging, JUDGE, "openai:other"),
    "judge.rubric": Case(judging, JUDGE, "chosen"),
    "judge.both_orders": Case(judging, JUDGE, True),
    "judge.allow_missing": Case(judging, JUDGE, True),
    "judge.max_cost": Case(judging, JUDGE, 1e-6),
    "judge.input_price": Case(judging, JUDGE, 2.0),
    "judge.output_price": Case(judging, JUDGE, 2.0),
    "judge.concurrency": Case(partial(judging, wait=0.2), JUDGE, 1),
    "judge.timeout": Case(partial(judging, first_wait=0.4), JUDGE, 0.15),
    "judge.verifier_seconds": Case(
        verifying, {**LOCAL, "benchmark": "prompts.json", "judge": {"name": "check.py", "canaries": 0}}, 0.1
    ),
    "judge.canaries": Case(judging, JUDGE, 2),
    "windtunnel.pairs": Case(world, WORLD, 17),
    "windtunnel.prompts": Case(answering_prompts, ORACLE, 17),
    "windtunnel.length_bias": Case(world, WORLD, 5.0),
    "windtunnel.label_noise": Case(world, WORLD, 0.4),
    "windtunnel.judge_length_bias": Case(answering_prompts, ORACLE, 3.0),
    "windtunnel.temperature": Case(world, WORLD, 0.5),
    "windtunnel.seed": Case(world, WORLD, 1),
}


def test_every_key_has_a_case() -> None:
    assert set(CASES) == set(configuration.keys())


@pytest.mark.parametrize("key", CASES)
def test_a_key_acts(key: str, tmp_path_factory: pytest.TempPathFactory, model: Path) -> None:
    base, changed = _configs(key, model)
    assert observe(CASES[key].scene, changed, tmp_path_factory) != of_base(CASES[key].scene, base, tmp_path_factory)


@pytest.mark.parametrize("key", CASES)
def test_a_key_that_is_ignored_is_seen(key: str, tmp_path_factory: pytest.TempPathFactory, model: Path) -> None:
    """The mutation: code that reads the base's value of this key, though it is set otherwise, in all that it does."""
    base, changed = _configs(key, model)
    kind, _, name = configuration.keys()[key], *key.rpartition(".")[1:]
    holder = getattr(base, key.partition(".")[0]) if "." in key else base
    value, read = getattr(holder, name), kind.__getattribute__

    def pairs(section: Any) -> Iterator[tuple[str, Any]]:
        return ((field, getattr(section, field)) for field in kind.model_fields)

    with Patch.context() as mutation:
        mutation.setattr(kind, "__getattribute__", lambda self, asked: value if asked == name else read(self, asked))
        mutation.setattr(kind, "__iter__", pairs)
        mutant = observe(CASES[key].scene, changed, tmp_path_factory)
    assert mutant == of_base(CASES[key].scene, base, tmp_path_factory)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), hidden_size=16, intermediate_size=32, num_hidden_layers=1)


def _configs(key: str, model: Path) -> tuple[Config, Config]:
    case = CASES[key]
    tree: Tree = case.base
    if case.scene in (training, several):
        steps = {"train": {"epochs": 1.0, "batch_pairs": 2, "save_every": 1, "warmup": 0.1}}
        objective = {"objective": {"name": "apo_hinge_zero", "beta": 5.0, "margin": 0.1}}
        sections = configuration.merge(steps | objective, case.base)
        tree = configuration.to_json(make_config(Path("run"), model, **sections))
    section, _, name = key.rpartition(".")
    change = {section: {name: case.value}} if section else {key: case.value}
    base = configuration.resolve(tree)
    return base, configuration.resolve(configuration.merge(configuration.merge(tree, case.also), change))


def observe(scene: Scene, config: Config, folders: pytest.TempPathFactory) -> object:
    """What comes of a configuration, in a fresh folder with fresh caches; a refusal is something that comes of it."""
    folder = folders.mktemp("scene")
    with Patch.context() as patch:
        patch.chdir(folder)
        patch.setattr(os, "fsync", lambda _file: None)  # no machine fails here, and disks took half of the time
        patch.setenv("TRIMTAB_HOME", str(folder / "home"))
        patch.setenv("OPENAI_API_KEY", "sk-none")
        clf = texts(folder / OTHER_TEXTS) / "alpaca_eval_clf.txt"
        clf.write_text(clf.read_text().replace("Which?", "Which one?"))
        try:
            return scene(config, patch)
        except TrimtabError as error:
            return str(error)


def of_base(scene: Scene, base: Config, folders: pytest.TempPathFactory) -> object:
    """`observe`, once for each base. Bases are compared by what they say, since sections are not hashable."""
    key = (scene, json.dumps(configuration.to_json(base)))
    if key not in _BASES:
        _BASES[key] = observe(scene, base, folders)
    return _BASES[key]


_BASES: dict[tuple[Scene, str], object] = {}
