"""The aligned model as a folder of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import cast

from trimtab import store
from trimtab.commands.finished import finished_model
from trimtab.engine import models
from trimtab.errors import ConfigError
from trimtab.runtime import gguf_export


def main(run_folder: str, *, format: str, to: str | None, quantize: str | None = None) -> gguf_export.Exported:
    """Copy (`hf`), merge (`merged`) or convert (`gguf`) the model of a run into the folder `to`."""
    model = finished_model(run_folder)
    target = Path(to) if to else Path(run_folder) / f"export-{format}"
    if target.exists():
        raise ConfigError(f"{target} is there already", remedy="choose another folder with --to")
    if quantize is not None and format != "gguf":
        raise ConfigError("--quantize has no effect here", remedy="use it with --format gguf")
    match format:
        case "hf":
            store.commit_folder(target, lambda folder: _copy(model, folder))
        case "merged":
            loaded = models.load(str(model), device="cpu", offline=True)
            store.commit_folder(target, lambda folder: models.save(loaded.model, loaded.tokenizer, folder))
        case "gguf":
            return gguf_export.export(model, target, quantize=_number_format(quantize or "f16"), name=_name(run_folder))
        case unknown:
            raise ConfigError(f"no export format {unknown!r}", remedy="use --format hf, merged or gguf")
    return gguf_export.Exported(target, ())


def _number_format(word: str) -> gguf_export.Format:
    if word not in gguf_export.FORMATS:
        raise ConfigError(f"--quantize {word} is not written", remedy=f"use one of {', '.join(gguf_export.FORMATS)}")
    return cast(gguf_export.Format, word)


def _name(run_folder: str) -> str:
    """A file's name that no shell or server stumbles over."""
    return re.sub(r"[^\w.-]+", "-", Path(run_folder).resolve().name).strip("-.") or "model"


def _copy(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.is_symlink() and path.resolve().parent not in (source.resolve(), *_blobs(source)):
            raise ConfigError(
                f"{path} is a link to {path.resolve()}, which is no part of the model",
                remedy="delete the link, or put the file itself in its place",
            )
        if path.is_file() and path.name != store.MANIFEST:
            shutil.copyfile(path, folder / path.name)


def _blobs(source: Path) -> list[Path]:
    """Where the Hub's cache keeps the files that a snapshot (`…/snapshots/<revision>`) links to."""
    return [source.parent.parent.resolve() / "blobs"] if source.parent.name == "snapshots" else []
