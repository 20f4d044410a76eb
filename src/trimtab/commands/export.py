"""The aligned model as a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from trimtab import store
from trimtab.commands.finished import finished_model
from trimtab.engine import models
from trimtab.errors import ConfigError


def main(run_folder: str, *, format: str, to: str | None) -> str:
    """Copy (`hf`) or merge (`merged`) the model of a run into `to`; returns the folder's path."""
    model = finished_model(run_folder)
    target = Path(to) if to else Path(run_folder) / f"export-{format}"
    if target.exists():
        raise ConfigError(f"{target} is there already", remedy="choose another folder with --to")
    match format:
        case "hf":
            store.commit_folder(target, lambda folder: _copy(model, folder))
        case "merged":
            loaded = models.load(str(model), device="cpu", offline=True)
            store.commit_folder(target, lambda folder: models.save(loaded.model, loaded.tokenizer, folder))
        case "gguf":
            raise ConfigError(
                "gguf is not written by this version",
                remedy="export with --format merged, then convert the folder with llama.cpp's convert_hf_to_gguf.py",
            )
        case unknown:
            raise ConfigError(f"no export format {unknown!r}", remedy="use --format hf or --format merged")
    return str(target)


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
