"""Predicted against measured: the peak of resident memory of whole training runs, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stage_runs import make_config, make_pairs_of, prepare
from trimtab import config as configuration

SCRIPT = """
import json, sys, torch
sys.path.insert(0, {tests!r})
from stage_runs import Recorder
from trimtab import config as configuration
from trimtab.engine import memory
from trimtab.runtime import memory_fit, set_up
from trimtab.runtime.training_plan import training_plan
from trimtab.stages import reference, train

config = configuration.resolve(json.loads({config!r}))
setup = set_up(config)
setup.use_threads()
pairs = setup.folder.train_pairs()
shape, planned, cpu = setup.memory_shape, training_plan(setup, pairs), torch.device("cpu")
tokens = sum(pair.n_tokens for pair in pairs)
fit = memory_fit.fit(setup, pairs=pairs)
padded = 2 * config.train.batch_pairs * memory_fit.longest_sequence(pairs)
told = memory_fit.predict(
    setup,
    pack_tokens=min(fit.pack_tokens, padded if shape.eager_heads else planned.largest_batch_tokens),
    pairs=pairs,
    response_share=1 - sum(len(pair.prompt_ids) for pair in pairs) / tokens,
    checkpointing=fit.checkpointing,
    base=memory.held_bytes(),
)
reference.main(setup, reporter=Recorder())
train.main(setup, reporter=Recorder())
parts = {{name: getattr(told, name) for name in told.__dataclass_fields__}}
print(json.dumps({{"predicted": told.peak, "measured": memory.peak_bytes(cpu), **parts}}))
"""

WIND_TUNNEL = {"vocab_size": 512, "hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 5}
TWENTY_MILLION = {"vocab_size": 16000, "hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 8}
SIXTY_MILLION = {
    "vocab_size": 38000, "hidden_size": 448, "intermediate_size": 2432, "num_hidden_layers": 12,
    "num_attention_heads": 7, "num_key_value_heads": 1,
}  # fmt: skip
SHAPES = {"windtunnel": WIND_TUNNEL, "20m": TWENTY_MILLION, "60m": SIXTY_MILLION}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from stage_runs import write_model

    parent = tmp_path_factory.mktemp("shapes")
    return {name: write_model(parent / name, **shape) for name, shape in SHAPES.items()}


def measured(config: dict[str, Any]) -> dict[str, int]:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), config=json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ}, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


# model, adapter, checkpointing, tokens a pack, steps; every combination runs with the slow ones
REAL = ("stories260K", "cardputer-chat-3M")
TOKENS = {"windtunnel": 2048, "stories260K": 2048, "cardputer-chat-3M": 1024, "20m": 1500, "60m": 800}
QUICK = {("windtunnel", "lora", "on"), ("20m", "none", "selective")}  # test_plan_command.py has three without either


def _cases() -> list[Any]:
    found = []
    for name, pack_tokens in TOKENS.items():
        for adapter in ("none", "lora"):
            for mode in ("off", "selective", "on"):
                marks = [pytest.mark.needs_shared] if name in REAL else []
                marks += [] if (name, adapter, mode) in QUICK else [pytest.mark.slow]
                found.append(pytest.param(name, adapter, mode, pack_tokens, marks=marks))
    return found


@pytest.mark.parametrize(("name", "adapter", "checkpointing", "pack_tokens"), _cases())
def test_the_predicted_peak_is_within_15_percent_of_the_measured_one(
    folders: dict[str, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    adapter: str,
    checkpointing: str,
    pack_tokens: int,
) -> None:
    model = request.getfixturevalue("shared_data") / "models" / name if name in REAL else folders[name]
    prompt, response = (40, 60) if name in REAL else (80, 100)
    per_batch, steps = pack_tokens // (prompt + 2 * response) + 1, 2
    config = make_config(
        tmp_path / "run",
        model,
        adapter={"kind": adapter},
        train={"max_steps": steps, "batch_pairs": per_batch, "learning_rate": 1e-5},
        engine={"pack_tokens": pack_tokens, "checkpointing": checkpointing},
    )
    prepare(config, make_pairs_of(steps * per_batch, prompt=prompt, response=response))
    told = measured(configuration.to_json(config))
    ratio = told["predicted"] / told["measured"]
    report = f"{name} {adapter} {checkpointing} {pack_tokens}: {ratio:.2f} of {told['measured'] / 1e6:.0f} MB; {told}"
    print(report)
    assert 0.85 <= ratio <= 1.15, report
