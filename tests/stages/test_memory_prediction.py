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
from trimtab.stages import policy, reference, train
from trimtab.stages.folder import Folder

config = configuration.resolve(json.loads({config!r}))
policy.use_threads(config)
pairs = policy.read_pairs(Folder.of(config).data / "train.jsonl")
shape, planned, cpu = policy.shape(config), train.plan(config, pairs), torch.device("cpu")
tokens = sum(pair.n_tokens for pair in pairs)
told = memory.predict(
    shape,
    dtype=torch.float32,
    device=cpu,
    pack_tokens=min(policy.pack_tokens(config, pairs=pairs), planned["largest_batch_tokens"]),
    response_share=1 - sum(len(pair.prompt_ids) for pair in pairs) / tokens,
    base=memory.held_bytes(),
)
reference.main(config, reporter=Recorder())
train.main(config, reporter=Recorder())
parts = {{name: getattr(told, name) for name in told.__dataclass_fields__}}
print(json.dumps({{"predicted": told.peak, "measured": memory.peak_bytes(cpu), **parts}}))
"""

WIND_TUNNEL = {"vocab_size": 512, "hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 5}
TWENTY_MILLION = {"vocab_size": 16000, "hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 8}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from stage_runs import write_model

    parent = tmp_path_factory.mktemp("shapes")
    return {
        "windtunnel": write_model(parent / "windtunnel", **WIND_TUNNEL),
        "20m": write_model(parent / "20m", **TWENTY_MILLION),
    }


def measured(config: dict[str, Any]) -> dict[str, int]:
    script = SCRIPT.format(tests=str(Path(__file__).parent), config=json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ}, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


SLOW = pytest.mark.slow
CASES = [
    ("windtunnel", "none", 4096, 3),
    ("20m", "none", 600, 2),
    ("20m", "lora", 1000, 1),
    pytest.param("stories260K", "none", 2048, 3, marks=pytest.mark.needs_shared),
    pytest.param("windtunnel", "none", 1024, 3, marks=SLOW),
    pytest.param("windtunnel", "lora", 2048, 3, marks=SLOW),
    pytest.param("20m", "none", 2048, 2, marks=SLOW),
    pytest.param("20m", "lora", 1500, 2, marks=SLOW),
]


@pytest.mark.parametrize(("name", "adapter", "pack_tokens", "steps"), CASES)
def test_the_predicted_peak_is_within_a_quarter_of_the_measured_one(
    folders: dict[str, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    adapter: str,
    pack_tokens: int,
    steps: int,
) -> None:
    real = name == "stories260K"
    model = request.getfixturevalue("shared_data") / "models" / name if real else folders[name]
    prompt, response = (60, 80) if real else (80, 100)
    per_batch = max(4, pack_tokens // (prompt + 2 * response) + 1)
    config = make_config(
        tmp_path / "run",
        model,
        adapter={"kind": adapter},
        train={"max_steps": steps, "batch_pairs": per_batch, "learning_rate": 1e-5},
        engine={"pack_tokens": pack_tokens},
    )
    prepare(config, make_pairs_of(steps * per_batch, prompt=prompt, response=response))
    told = measured(configuration.to_json(config))
    ratio = told["predicted"] / told["measured"]
    report = f"{name} {adapter} {pack_tokens}: {ratio:.2f} of {told['measured'] / 1e6:.0f} MB; {told}"
    print(report)
    assert 0.75 <= ratio <= 1.25, report
