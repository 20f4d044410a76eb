"""Pushing a run to the Hub: against a stand-in (`tests/hub_server.py`), with the client's own checks of cards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import trimtab
from api_runs import KEYS, rows
from hub_server import HubServer
from trimtab import cli, store
from trimtab.errors import ConfigError
from trimtab.records import Estimate
from trimtab.reporting.numbers.marks import MarkMeans, MarkNumbers
from trimtab.runtime.hub_card import hub_card

TOKEN = "hf_stand-in-for-a-token"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("push") / "run"
    adapter = {"kind": "lora", "rank": 4}
    trimtab.train("windtunnel", pairs=rows(), objective=trimtab.Dpo(), out=out, adapter=adapter, **KEYS)
    return out


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(token=TOKEN) as server:
        yield server


@pytest.fixture
def push(hub: HubServer, run: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(repo: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trimtab", "push", str(run), repo, *words]
        return subprocess.run(command, env=hub.environment | environment, capture_output=True, text=True, check=False)

    return call


def test_the_models_files_and_its_card_arrive(
    run: Path, hub: HubServer, push: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = push("me/model")
    assert done.returncode == 0, done.stderr
    files = hub.files["me/model"]
    sources = {path.name for path in (run / "model").iterdir()} - {store.MANIFEST}
    assert set(files) == sources
    for name in sources - {"README.md"}:
        assert files[name] == (run / "model" / name).read_bytes()
    card = ModelCard(files["README.md"].decode())
    [accuracy] = card.data.eval_results
    heldout = store.read_json(run / "report.json")["heldout"]["accuracy"]
    low, high = heldout["ci95"]
    assert accuracy.metric_value == heldout["value"]
    assert accuracy.metric_name == f"reward accuracy (95 % CI {low:.4g} to {high:.4g}, {heldout['n']} pairs)"
    assert accuracy.metric_args["ci95"] == [low, high]
    assert card.data.library_name == "peft"
    assert "## How to reproduce" in card.text
    assert "trimtab run --model windtunnel" in card.text
    assert done.stdout.splitlines()[-1] == f"{hub.url}/me/model"
    assert hub.private == {"me/model": False}
    assert "\r" not in done.stderr
    assert push("me/model").returncode == 0  # a second time it is one more commit


def test_the_token_goes_into_requests_and_nowhere_else(
    run: Path, hub: HubServer, push: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = push("me/model", "--json")
    assert {token for _, path, token in hub.requests if "me/model" in path} == {TOKEN}
    assert TOKEN not in done.stdout + done.stderr
    assert json.loads(done.stdout)["url"] == f"{hub.url}/me/model"
    holders = [path for path in run.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not holders
    assert all(TOKEN.encode() not in content for content in hub.files["me/model"].values())


def test_merged_is_a_whole_model(
    run: Path, hub: HubServer, push: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert push("me/merged", "--merged").returncode == 0
    files = hub.files["me/merged"]
    assert "adapter_config.json" not in files
    assert ModelCard(files["README.md"].decode()).data.library_name == "transformers"
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    model, _ = trimtab.Run(run).load()
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (weights[name] - model.state_dict()[name]).abs().max() == 0
    assert not list(run.glob(".push-*"))


def test_a_dry_run_needs_no_token_and_sends_nothing(
    run: Path, hub: HubServer, push: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = push("me/model", "--dry-run", "--private", HF_TOKEN="", HF_HOME=str(run / "nobody"))
    assert done.returncode == 0, done.stderr
    assert "would go to me/model (private where it is new)" in done.stdout
    assert "adapter_model.safetensors" in done.stdout
    assert "model-index:" in done.stdout
    assert "note: the card names no base model: windtunnel is not on the Hub" in done.stdout
    assert hub.requests == []


def test_private_is_private(hub: HubServer, push: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert push("me/secret", "--private").returncode == 0
    assert hub.private == {"me/secret": True}
    hub.files["me/open"], hub.private["me/open"] = {}, False
    done = push("me/open", "--private")
    assert (done.returncode, hub.files["me/open"]) == (2, {})
    assert "me/open is there already, and public" in done.stderr


@pytest.mark.parametrize(
    ("repo", "words", "environment", "code", "message"),
    [
        ("me/model", (), {"HF_TOKEN": "hf_another-token"}, 1, "the Hub refuses (Client error '401 Unauthorized'"),
        ("me/model", (), {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "the Hub cannot be reached"),
        ("me/model", (), {"HF_HUB_OFFLINE": "1"}, 1, "offline mode is enabled"),
        ("me/model", (), {"HF_TOKEN": "", "HF_HOME": "nobody"}, 2, "the Hub wants to know who you are"),
        ("model", (), {}, 2, "'model' names no owner"),
        ("me/a b", (), {}, 2, "is no name on the Hub"),
    ],
)
def test_what_cannot_be_pushed_is_one_message(
    push: Callable[..., subprocess.CompletedProcess[str]],
    repo: str,
    words: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    message: str,
) -> None:
    done = push(repo, *words, **environment)
    assert done.returncode == code
    assert message in done.stderr
    assert "\n  → " in done.stderr


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["push", str(tmp_path / "nowhere"), "me/model", "--dry-run"])
    assert "no such run folder" in capsys.readouterr().err


# --- the card --------------------------------------------------------------------------------------------------------


def estimate(value: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": n, "method": "Wilson"}


def config_of(model: str, source: Any) -> dict[str, Any]:
    return {"model": {"name": model}, "data": {"source": source}, "seed": 3}


REPORT: dict[str, Any] = {
    "heldout": {"accuracy": estimate(0.75, 0.6, 0.85, 40)},
    "benchmark": {
        "name": "alpaca_eval",
        "baseline": {"name": "gpt4_1106_preview", "published": True},
        "judges": [
            {
                "label": "gpt-x",
                "win_rate": estimate(12.5, 10.25, 15.0, 805),
                "length_controlled": {**estimate(14.0, 11.0, 17.0, 805), "ci95": None},
            }
        ],
        "marks": None,
    },
    "reproduce": {"from_flags": "trimtab run --data ~x", "from_file": None, "note": "It repeats."},
    "versions": {"trimtab": "0.1.0", "python": "3.12.1", "packages": {"torch": "2.13.0", "peft": None}},
}
README = "---\ntags: [trimtab, mine]\nlicense: apache-2.0\n---\n\n# Mine\n\nMy own words.\n"


def test_a_card_names_what_is_on_the_hub_and_every_interval() -> None:
    config = config_of("Qwen/Qwen2.5-0.5B-Instruct", {"trl-lib/ultrafeedback_binarized": 2.0, "a/b:subset@v1": 1.0})
    result = hub_card(README, repo="me/model", config=config, report=REPORT)
    card = ModelCard(result.text, ignore_metadata_errors=False)
    assert result.notes == ()
    assert card.data.base_model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert card.data.datasets == ["trl-lib/ultrafeedback_binarized", "a/b"]
    assert (card.data.license, card.data.tags) == ("apache-2.0", ["trimtab", "mine"])
    assert "My own words." in card.text
    assert "```sh\npip install trimtab==0.1.0\ntrimtab run --data ~x\n```\n\nIt repeats." in card.text
    assert "Seed 3. Python 3.12.1, torch 2.13.0." in card.text
    names = {entry.metric_name: entry.metric_value for entry in card.data.eval_results}
    assert names == {
        "reward accuracy (95 % CI 0.6 to 0.85, 40 pairs)": 0.75,
        "win rate in % over gpt4_1106_preview, judged by gpt-x (95 % CI 10.25 to 15, 805 prompts)": 12.5,
        "length-controlled win rate in % over gpt4_1106_preview, judged by gpt-x (no interval, 805 prompts)": 14.0,
    }
    assert {entry.dataset_type for entry in card.data.eval_results} == {"preference-pairs", "alpaca_eval"}


def test_marks_have_their_interval_too() -> None:
    marks = MarkNumbers(
        judge="gpt-x",
        models={"aligned": "mine"},
        n_questions=80,
        n_missing={"aligned": 0},
        overall=MarkMeans({"aligned": Estimate(6.5, ci95=(6.0, 7.0), n=80, method="t")}, None),
        groups=(),
    )
    benchmark = {"name": "mt_bench", "baseline": None, "judges": [], "marks": marks.to_json()}
    report = REPORT | {"heldout": None, "benchmark": benchmark}
    config = config_of("me/base", "me/pairs")
    [mean] = ModelCard(hub_card(README, repo="me/m", config=config, report=report).text).data.eval_results
    assert mean.metric_name == "mean mark of 10, by gpt-x (95 % CI 6 to 7, 80 questions)"
    assert (mean.metric_value, mean.dataset_type) == (6.5, "mt_bench")


def test_a_card_tells_nobody_where_things_lie_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = config_of(str(tmp_path / "models/base"), f"{tmp_path}/pairs.jsonl")
    text = README.replace("words", f"words on {tmp_path}/pairs.jsonl")
    result = hub_card(text, repo="me/model", config=config, report=REPORT | {"benchmark": None})
    assert str(tmp_path) not in result.text + " ".join(result.notes)
    assert "words on ~/pairs.jsonl" in result.text
    assert result.notes == (
        "the card names no base model: base is not on the Hub",
        "the card names no data set: the pairs are not on the Hub",
    )


def test_a_name_that_is_a_folder_here_is_not_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me/base").mkdir(parents=True)
    result = hub_card(README, repo="me/model", config=config_of("me/base", "windtunnel"), report=REPORT)
    assert ModelCard(result.text).data.base_model is None


def test_a_card_with_a_token_or_a_broken_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("windtunnel", "windtunnel")
    with pytest.raises(ConfigError, match="holds a token"):
        hub_card(README + TOKEN, repo="me/model", config=config, report=REPORT, secrets=(TOKEN,))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    with pytest.raises(ConfigError, match="holds a token"):
        hub_card(README + "sk-0123456789", repo="me/model", config=config, report=REPORT)
    with pytest.raises(ConfigError, match="cannot be read"):
        hub_card("---\ntags: [\n---\n", repo="me/model", config=config, report=REPORT)
