"""`trimtab init`, `ls`, `cache` and what `doctor` advises: made-up folders, nothing is trained."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from trimtab import config, store
from trimtab.commands import cache, init, run_list
from trimtab.commands.doctor import Hardware, gpu_advice
from trimtab.config.files import read_file
from trimtab.errors import ConfigError

MODEL_BYTES, CHECKPOINT_BYTES = 3_000, 5_000


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A reported run, a stopped one two folders down, one with two seeds, and a model that is no run."""
    root = tmp_path / "runs"
    for name, tree in (("done", {}), ("sweep/points/a", {"objective": "dpo"}), ("pooled", {"seeds": 2})):
        told = {"model": "m", "data": "d.jsonl", "out": str(root / name)} | tree
        store.write_json(root / name / "config.json", config.to_json(config.resolve(told)))
    report = {
        "training": {"seeds": [{"regime": {"name": "selective"}}]},
        "benchmark": {"judges": [{"win_rate": {"value": 70.25, "ci95": [67.0, 73.3]}}]},
    }
    store.write_json(root / "done" / "report.json", report)
    store.commit_folder(root / "done" / "model", lambda into: store.write_bytes(into / "w", b"x" * MODEL_BYTES))
    for name, step in (("done", 24), ("sweep/points/a", 7)):
        store.write_bytes(root / name / "checkpoints" / f"step-{step:08d}" / "w", b"x" * CHECKPOINT_BYTES)
    store.write_json(root / "pooled" / "seed-0" / "config.json", {})
    (root / "pooled" / "seed-0" / "model").mkdir()
    store.write_json(root / "a-model" / "config.json", {"model_type": "llama"})
    return root


def test_the_runs_and_what_came_of_them(runs: Path) -> None:
    rows = {row.name: row for row in run_list.main(str(runs)).runs}
    assert {name: (row.state, row.objective, row.seeds, row.step) for name, row in rows.items()} == {
        "done": ("reported", "apo_hinge_zero", 1, 24),
        "pooled": ("trained", "apo_hinge_zero", 2, None),
        "sweep/points/a": ("stopped", "dpo", 1, 7),
    }
    done = rows["done"]
    assert (done.win_rate, done.win_rate_ci95, done.regime) == (70.25, (67.0, 73.3), "selective")
    files = [path for path in (runs / "done").rglob("*") if path.is_file()]
    assert done.bytes == sum(path.stat().st_size for path in files) > MODEL_BYTES + CHECKPOINT_BYTES
    text = "\n".join(run_list.lines(run_list.main(str(runs))))
    assert "70.2 [67.0,\u00a073.3]" in text.replace("\\xa0", "\u00a0")
    assert "stopped at step 7" in text
    with pytest.raises(ConfigError, match="no such folder"):
        run_list.main(str(runs / "none"))


def test_a_damaged_run_is_listed_as_such(runs: Path) -> None:
    (runs / "done" / "config.json").write_text("{")
    assert {row.name: row.state for row in run_list.main(str(runs)).runs}["done"] == "damaged"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("TRIMTAB_HOME", str(folder))
    for name in ("old", "new"):
        store.write_bytes(folder / "reference" / name / "shard", b"x" * 1_000)
    store.write_bytes(folder / "answers" / "a.json", b"x" * 10)
    with store.database(folder / "verdicts.sqlite") as connection:
        connection.execute("CREATE TABLE t (x)")
    past = time.time() - 10 * 86_400
    os.utime(folder / "reference" / "old", (past, past))
    return folder


def test_the_cache_is_shown_and_pruned_by_kind_and_age(home: Path, runs: Path) -> None:
    shown = {share.kind: (share.entries, share.bytes) for share in cache.main(runs=str(runs)).shares}
    assert (shown["reference"], shown["answers"], shown["gguf"]) == ((2, 2_000), (1, 10), (0, 0))
    assert shown["checkpoints"] == (1, CHECKPOINT_BYTES)  # of the reported run; the stopped one needs its own
    tried = cache.main(runs=str(runs), prune=["reference"], older_than=5, dry_run=True)
    assert (tried.bytes_freed, (home / "reference" / "old").exists()) == (1_000, True)
    assert cache.main(runs=str(runs), prune=["reference"], older_than=5).bytes_freed == 1_000
    assert [path.name for path in (home / "reference").iterdir()] == ["new"]
    freed = cache.main(runs=str(runs), prune=["all"])
    assert freed.bytes_freed == 1_000 + 10 + CHECKPOINT_BYTES
    assert (home / "verdicts.sqlite").is_file(), "paid for: only by name"
    assert (runs / "sweep/points/a/checkpoints").is_dir()
    assert not (runs / "done/checkpoints").exists()
    with pytest.raises(ConfigError, match="no kind of cache"):
        cache.main(runs=str(runs), prune=["everything"])


def test_a_run_whose_model_is_damaged_keeps_its_checkpoints(home: Path, runs: Path) -> None:
    (runs / "done" / "model" / "w").write_bytes(b"y" * MODEL_BYTES)
    assert cache.main(runs=str(runs), prune=["checkpoints"]).bytes_freed == 0
    assert (runs / "done/checkpoints").is_dir()


def test_the_cache_moves_and_is_found_where_it_was(home: Path, runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "disk" / "trimtab"
    moved = cache.main(runs=str(runs), move_to=str(target))
    assert (moved.moved_to, moved.needs_variable) == (str(target), False)
    assert home.is_symlink()
    assert (home / "reference" / "new" / "shard").read_bytes() == (target / "reference/new/shard").read_bytes()
    again = cache.main(runs=str(runs), move_to=str(tmp_path / "other"))  # the link follows, and the old place is gone
    assert (again.moved_to, target.exists()) == (str(tmp_path / "other"), False)
    assert (home / "reference" / "new" / "shard").is_file()
    with pytest.raises(ConfigError, match="is there already"):
        cache.main(runs=str(runs), move_to=str(tmp_path / "other" / "inside"))


def test_a_recipe_is_written_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return 'a "quoted" model'

    written = init.main(model=None, data="pairs.jsonl", machine="cpu", objective="dpo", to=str(path), ask=ask)
    assert len(questions) == 1
    resolved = config.resolve(read_file(path))
    assert (resolved.model.name, resolved.data.source) == ('a "quoted" model', "pairs.jsonl")
    assert (resolved.objective.name, resolved.adapter.kind, resolved.train.learning_rate) == ("dpo", "lora", 1e-4)
    assert "LoRA" in written.notes[0]
    assert all("#" in line for line in path.read_text().splitlines() if " = " in line)
    with pytest.raises(ConfigError, match="there already"):
        init.main(model="m", data="d", machine="gpu", objective="dpo", to=str(path))
    with pytest.raises(ConfigError, match="objective"):
        init.main(model="m", data="d", machine="gpu", objective="dop", to=str(tmp_path / "b.toml"))
    with pytest.raises(ConfigError, match="--model is missing"):
        init.main(model=None, data="d", machine="gpu", objective="dpo", to=str(tmp_path / "c.toml"))
    assert not (tmp_path / "b.toml").exists()


@pytest.mark.parametrize(
    ("data", "source"),
    [
        ("a.jsonl:2,b.jsonl:0.5", {"a.jsonl": 2.0, "b.jsonl": 0.5}),
        ("a.jsonl,b.jsonl", ("a.jsonl", "b.jsonl")),
        ("owner/name:subset", "owner/name:subset"),
    ],
)
def test_a_recipe_has_the_sources_that_the_flag_names(data: str, source: object, tmp_path: Path) -> None:
    """They were written as one name, of a file that does not exist."""
    path = tmp_path / "mine.toml"
    init.main(model="m", data=data, machine="cpu", objective="dpo", to=str(path))
    assert config.resolve(read_file(path)).data.source == source
    for bad in ("a.jsonl:2,b.jsonl", "a.jsonl:0,b.jsonl:1"):
        with pytest.raises(ConfigError, match=r"cannot be read|a weight is above 0"):
            init.main(model="m", data=bad, machine="cpu", objective="dpo", to=str(tmp_path / "bad.toml"))
    assert not (tmp_path / "bad.toml").exists()


def machine(*accelerators: str, system: str = "Linux x86_64", problem: str | None = None) -> Hardware:
    return Hardware(system, "cpu", 2, 16.0, accelerators, False, False, problem)


def test_what_to_install_for_the_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia, amd, none = frozenset({"NVIDIA"}), frozenset({"AMD"}), frozenset[str]()
    monkeypatch.setattr("trimtab.commands.doctor.find_spec", lambda _name: None)
    assert "nothing to install" in gpu_advice(machine(), none, None)[0]
    assert "`pip install --force-reinstall torch`" in gpu_advice(machine(), nvidia, None)[0]
    assert "pip install" not in gpu_advice(machine(system="Windows AMD64"), nvidia, None)[0]  # its index has CPU builds
    assert "driver may be older" in gpu_advice(machine(), nvidia, "CUDA 13.0")[0]
    assert "ROCm" in gpu_advice(machine(), amd, None)[0]
    assert "trimtab[qlora]" in gpu_advice(machine("NVIDIA H200"), nvidia, "CUDA 13.0")[0]
    assert gpu_advice(machine("Apple MPS"), none, None) == ()
    assert "cannot be loaded" in gpu_advice(machine(problem="no libcudart"), nvidia, None)[0]


def test_the_same_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trimtab import cli

    cli.main(["ls", str(runs), "--json"])
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 3


def test_completion_is_installed_for_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trimtab import cli

    monkeypatch.setenv("HOME", str(tmp_path))
    cli.main(["--install-completion", "--shell", "bash"])
    script = Path(capsys.readouterr().out.partition(": ")[0])
    assert script.is_relative_to(tmp_path)
    assert "--train.max-minutes" in script.read_text(encoding="utf-8")
    assert str(script) in (tmp_path / ".bashrc").read_text(encoding="utf-8")
