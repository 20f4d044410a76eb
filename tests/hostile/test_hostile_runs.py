"""A stranger's run folder, a damaged one, one that is in use; and names that would lead out of it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_calls import harmless, nothing_new, put, refused

from trimtab import store
from trimtab.config import files, resolve
from trimtab.errors import ConfigError
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.studies.sweep import grid

READERS = ("compare", "calibrate", "report", "probe", "winrate", "arena", "export", "train", "plan")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "inside" / "run", symlinks=True))


def read_by(command: str, run: Path, other: Path) -> None:
    match command:
        case "compare":
            harmless("compare", run, other, seconds=60)
        case "arena":
            harmless("arena", run, f"{run}:baseline", "--no-browser", "--limit", "0", seconds=60)
        case "winrate":
            for file in sorted(run.glob("verdicts/*.json")):
                harmless("winrate", file, seconds=60)
        case "export":
            harmless("export", run, "--to", run / "copy", seconds=60)
        case _:
            harmless(command, run, seconds=120)


WRONG: dict[str, bytes] = {
    "nothing": b"", "half": b'{"a": ', "list": b"[]", "number": b"7", "empty": b"{}", "null": b"null",
    "deep": b"[" * 99_999,
    "bytes": b"\xff\xfe\x00", "rows": b'{"a": 1}\n{"b": 2}\n', "other": b'[{"instruction": 1, "output": null}]',
}  # fmt: skip
TEXT_FILES = (
    "config.json", "plan.json", "versions.json", "reference.json", "heldout.json", "report.json", "metrics.jsonl",
    "visits.jsonl", "outlook.json", "selection.json", "screening.json", "data/audit.json", "data/train.jsonl",
    "data/heldout.jsonl", "data/pairs.jsonl", "data/manifest.json", "model/manifest.json", "model/config.json",
    "model/tokenizer_config.json",
    "answers/windtunnel.json", "answers/windtunnel.baseline.json", "verdicts/windtunnel.oracle.json",
    "verdicts/windtunnel.scores.json", ".stages/report.json", ".stages/train.json", ".stages/prepare.json",
)  # fmt: skip


def spoil(run: Path, finished: Path, name: str, wrong: str) -> None:
    assert (run / name).is_file()
    (run / name).write_bytes(WRONG[wrong])
    shutil.rmtree(run / "copy", ignore_errors=True)
    for command in ("compare", "report", "calibrate", "probe"):
        read_by(command, run, finished)


@pytest.mark.parametrize("seed", range(2))
def test_some_damaged_files_of_a_run(run: Path, finished: Path, seed: int) -> None:
    """A slice, by seed, of what `test_each_damaged_file_of_a_run` does whole."""
    pick = random.Random(seed)  # noqa: S311  # which of the cases
    spoil(run, finished, pick.choice(TEXT_FILES), pick.choice(sorted(WRONG)))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", sorted(WRONG))
@pytest.mark.parametrize("name", TEXT_FILES)
def test_each_damaged_file_of_a_run(run: Path, finished: Path, name: str, wrong: str) -> None:
    spoil(run, finished, name, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("seed", range(20))
def test_values_of_another_kind_in_a_run(run: Path, finished: Path, command: str, seed: int) -> None:
    """One value of one JSON file becomes another thing, wherever it stands."""
    pick = random.Random(seed)  # noqa: S311  # which of the cases
    path = pick.choice([run / name for name in TEXT_FILES if name.endswith(".json") and (run / name).is_file()])
    path.write_text(json.dumps(changed(json.loads(path.read_text()), pick)))
    read_by(command, run, finished)


def changed(tree: Any, pick: random.Random) -> Any:
    if isinstance(tree, dict) and tree and pick.random() < 0.9:
        key = pick.choice(sorted(tree))
        return {**tree, key: changed(tree[key], pick)}
    if isinstance(tree, list) and tree and pick.random() < 0.9:
        place = pick.randrange(len(tree))
        return [changed(one, pick) if k == place else one for k, one in enumerate(tree)]
    return pick.choice([None, [], {}, "x", -1, 1e308, True, "../../x", ["x"], {"x": 1}])


def test_a_run_folder_cannot_allow_its_own_code(run: Path) -> None:
    """`trust_remote_code` in a folder that came from elsewhere is not the user's word."""
    config = json.loads((run / "config.json").read_text())
    config["model"] |= {"trust_remote_code": True}
    put(run / "config.json", config)
    for command in ("calibrate", "report", "train", "plan", "judge", "run"):
        said = refused(command, run)
        assert "a run folder's word is not enough" in said, command
        assert "--model.trust-remote-code true" in said, command


@pytest.mark.parametrize("command", ["judge", "run", "generate"])
@pytest.mark.parametrize("key", ["base_url", "generate.base_url"])
def test_a_run_folder_cannot_have_the_key_sent_to_its_own_server(
    run: Path, command: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    config = json.loads((run / "config.json").read_text())
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = "https://models.example/v1"
    put(run / "config.json", config)
    said = refused(command, run)
    assert "OPENAI_API_KEY sent to models.example" in said
    assert f"--{key.replace('_', '-')} https://models.example/v1" in said
    assert "sent to models.example" not in refused(command, run, f"--{key}", "https://models.example/v1")


def test_servers_that_need_no_word(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nothing can be sent; with one, this machine, OpenAI and $OPENAI_BASE_URL may have it."""

    def told(url: str) -> None:
        put(run / "config.json", json.loads((run / "config.json").read_text()) | {"base_url": url})
        files.refuse_unnamed_servers(run, flags={})

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    told("https://models.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://mine.example:8443/v1")
    for known in (
        "http://localhost:8000/v1",
        "http://[::1]:1/v1",
        "https://api.openai.com/v1",
        "https://mine.example:8443/v1",
    ):
        told(known)
    for strange in ("https://api.openai.com.example/v1", "http://api.openai.com/v1", "https://mine.example/v1"):
        with pytest.raises(ConfigError, match="not enough"):
            told(strange)


def test_an_export_takes_no_file_along_that_a_link_leads_to(run: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "id_rsa", "PRIVATE")
    (run / "model" / "vocab.json").symlink_to(secret)
    assert "is a link to" in refused("export", run, "--to", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["/", "..", ".", "../../x", "/etc/passwd", "a/../../b", "..\\..\\x", "x" * 300, ""])
def test_no_name_of_a_benchmark_leads_out_of_the_run(name: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    config = resolve({"model": "m", "data": "d", "out": str(root), "benchmark": {"name": name}})
    found = set_up(config).benchmark_name
    assert found is not None
    for path in (
        Folder(root).answers(found),
        Folder(root).baseline_answers(found),
        Folder(root).verdicts(found, "oracle"),
    ):
        assert path.resolve().parent.parent == root.resolve(), path


@pytest.mark.parametrize("value", ["../../x", "/etc/x", "..", ".", "a/b", "\u202ex", "x" * 300, "a\nb", "-", "\x1b[2J"])
def test_no_value_of_a_grid_leads_out_of_the_sweep(value: str, tmp_path: Path) -> None:
    tree = {"model": "m", "data": "d", "out": str(tmp_path / "sweep")}
    sweep = grid.expand(tree, [grid.Axis("data.source", (value, "other"))])
    for point in sweep.points:
        place = Path(point.config.out)
        assert place.resolve().parent == (tmp_path / "sweep" / "points").resolve()
        assert place.name.isprintable()
        assert place.name.isascii()
        assert len(place.name) <= 100


def test_a_manifest_that_is_none_and_one_that_points_elsewhere(tmp_path: Path) -> None:
    for told in ([], {"files": []}, {"files": {"x": 1}}, {"files": {"x": {}}}, {"files": {"../x": {"bytes": 1}}}, 7):
        put(tmp_path / "step-00000001" / "manifest.json", told)
        assert store.newest_valid(tmp_path, "step-")[0] is None


@pytest.mark.parametrize("what", ["model", "checkpoint"])
def test_a_stranger_s_weights_of_noise(run: Path, finished: Path, what: str) -> None:
    for path in (run / ("model" if what == "model" else "checkpoints")).rglob("*.safetensors"):
        path.write_bytes(random.Random(0).randbytes(200))  # noqa: S311  # noise
    read_by("calibrate", run, finished)
    read_by("train", run, finished)


HOLD = """import sys, pathlib
from trimtab import store
with store.lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_into_the_same_folder_is_refused(run: Path) -> None:
    with (
        nothing_new(run),
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for words in (("run", run), ("calibrate", run), ("report", run)):
            told = harmless(*words, seconds=60)
            assert told.code == 1
            assert f"{run} is in use by another trimtab process" in told.err
        holder.communicate("", timeout=30)
    assert harmless("report", run, seconds=60).code == 0, "and let in once the first is done"
