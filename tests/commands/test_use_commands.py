"""`trimtab chat` and `trimtab export`: using what a run left."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trial_runs import TINY, alone, call, contents, tree_of
from trimtab import cli, store, windtunnel
from trimtab.commands import chat

LORA = ["--adapter", "lora", "--train.learning-rate", "0.01", "--benchmark", "none", "--judge", "none"]


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("lora")
    with alone(parent / "home"):
        cli.main(["run", *TINY, *LORA, "--out", str(parent / "run"), "--quiet"])
    return parent / "run"


def test_chat_answers_each_line_and_stops_at_the_end_of_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", "chat", str(windtunnel.model_folder())],
        input="What colour is the sky?\nAnd at night?\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 2
    assert all(answer.strip() for answer in answers)
    assert "Traceback" not in done.stderr


def test_chat_hands_on_the_whole_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lora_run: Path
) -> None:
    asked: list[int] = []
    real = chat.sample

    def watched(model: object, prompts: list[list[int]], **options: object) -> object:
        asked.append(len(prompts[0]))
        return real(model, prompts, **options)  # type: ignore[arg-type]  # handed on unchanged

    monkeypatch.setattr(chat, "sample", watched)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say hello.\nSay hello.\n\nnever read\n"))
    code, printed, said = call(["chat", lora_run], capsys)
    assert code == 0, said
    assert len(printed.splitlines()) == len(asked) == 2
    assert asked[1] > 2 * asked[0]


def test_an_answer_is_printed_as_it_grows_with_its_line_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    """A character of two tokens waits for the second; what would steer the terminal is written out."""
    pieces = {1: "One,", 2: "\n- two", 3: " \N{REPLACEMENT CHARACTER}", 4: " é", 5: "\x1b[31m"}

    class Template:
        def answer_text(self, ids: list[int]) -> str:
            return "".join(pieces[token] for n, token in enumerate(ids) if not (token == 3 and n + 1 < len(ids)))

    answer, printed = chat._GrowingAnswer(Template()), []  # type: ignore[arg-type]  # the one method that is asked
    for token in pieces:
        answer.add(0, token)
        printed.append(capsys.readouterr().out)
    assert printed == ["One,", "\n- two", "", " é", "\\x1b[31m"]
    assert answer.finish() == "One,\n- two é\x1b[31m"
    assert capsys.readouterr().out == "\n"


def test_chat_takes_a_system_message_and_a_temperature(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lora_run: Path
) -> None:
    prompts: list[list[int]] = []
    temperatures: list[object] = []

    def sample(_model: object, conversation: list[list[int]], **options: object) -> None:
        prompts.extend(conversation)
        temperatures.append(options["temperature"])

    monkeypatch.setattr(chat, "sample", sample)
    for words in ([], ["--system", "You are brief.", "--temperature", "0"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Say hello.\n"))
        code, _, said = call(["chat", lora_run, *words], capsys)
        assert code == 0, said
    assert temperatures == [0.7, 0.0]
    assert len(prompts[1]) > len(prompts[0])


def test_chat_without_a_model_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = call(["chat", tmp_path], capsys)
    assert code == 2
    assert "holds neither a run nor a model" in said
    (tmp_path / "config.json").write_text("{}")
    assert "has no trained model yet" in call(["chat", tmp_path], capsys)[2]
    (tmp_path / "config.json").unlink()
    code, _, said = call(["chat", tmp_path], capsys)
    assert "→" in said
    assert call(["chat", tmp_path / "nowhere"], capsys)[0] == 2


def logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        told: torch.Tensor = model(torch.tensor([[5, 6, 7, 8, 9]])).logits  # type: ignore[operator]  # a transformers model
    return told


def test_export_hf_copies_the_adapter_and_merged_folds_it_in(
    lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = windtunnel.model_folder()
    code, printed, said = call(["export", lora_run, "--to", tmp_path / "as trained"], capsys)
    assert (code, printed.strip()) == (0, str(tmp_path / "as trained")), said
    exported = contents(tmp_path / "as trained")
    assert exported.pop(store.MANIFEST)
    assert exported == {k: v for k, v in contents(lora_run / "model").items() if k != store.MANIFEST}
    code, printed, said = call(["export", lora_run, "--format", "merged"], capsys)
    merged = lora_run / "export-merged"
    assert (code, printed.strip()) == (0, str(merged)), said
    assert not (merged / "adapter_config.json").exists()
    assert (merged / "tokenizer.json").is_file()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "as trained").eval()
    plain = AutoModelForCausalLM.from_pretrained(merged).eval()
    torch.testing.assert_close(logits(plain), logits(adapted), rtol=1e-4, atol=1e-4)
    unaligned = AutoModelForCausalLM.from_pretrained(base).eval()
    assert (logits(plain) - logits(unaligned)).abs().max() > 1e-2


def test_export_refuses_to_overwrite_and_names_what_it_cannot_write(
    lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    code, _, said = call(["export", lora_run, "--to", tmp_path / "taken"], capsys)
    assert code == 2
    assert "is there already" in said
    code, _, said = call(["export", lora_run, "--format", "onnx", "--to", tmp_path / "onnx"], capsys)
    assert code == 2
    assert "--format hf" in said
    assert not (tmp_path / "onnx").exists()


def test_a_run_on_a_relative_path_is_used_from_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(windtunnel.model_folder(), tmp_path / "base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    world = ["--model", "base", "--data", "windtunnel", "--data.holdout", "0.3", "--objective", "apo_hinge_zero"]
    code, _, said = call(["run", *TINY, *LORA, *world, "--out", "run", "--quiet"], capsys)
    assert code == 0, said
    adapter = tree_of(tmp_path / "run" / "model" / "adapter_config.json")
    assert adapter["base_model_name_or_path"] == str((tmp_path / "base").resolve())
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, said = call(["export", "../run", "--format", "merged", "--to", "merged"], capsys)
    assert code == 0, said
    code, _, said = call(["calibrate", "../run"], capsys)
    assert code == 0, said
    shutil.move(tmp_path / "base", tmp_path / "moved")
    for command in ("chat", "calibrate"):
        code, _, said = call([command, "../run"], capsys)
        assert code == 2
        assert "base" in said
        assert "put that folder back" in said or "go to where the run was made" in said
