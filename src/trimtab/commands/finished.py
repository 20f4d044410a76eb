"""What a finished run left behind."""

from __future__ import annotations

from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.runtime.folder import Folder


def finished_model(run_folder: str) -> Path:
    """The aligned model of a run as training left it, or the folder itself when it is a model."""
    root = Path(run_folder)
    if not root.is_dir():
        raise ConfigError(f"no such run folder: {root}", remedy="name the folder that `trimtab run` printed")
    if Folder(root).model.is_dir():
        return Folder(root).intact(Folder(root).model)
    if (root / "config.json").is_file() and any(root.glob("*.safetensors")):
        return root
    if seeds := sorted(path.parent for path in root.glob("seed-*/model")):
        raise ConfigError(f"{root} holds {len(seeds)} seeds", remedy=f"name one of them, such as {seeds[0]}")
    if not Folder(root).config.is_file():
        raise ConfigError(
            f"{root} holds neither a run nor a model", remedy="name the folder that `trimtab run` printed, or a model's"
        )
    raise ConfigError(f"{root} has no trained model yet", remedy="finish it first: trimtab run " + str(root))
