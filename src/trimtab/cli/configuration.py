"""CONFIG and flags -> the strict configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from trimtab import config
from trimtab.config import Config, files
from trimtab.config.flags import Keys, tree
from trimtab.errors import ConfigError

Source = Annotated[
    str | None, Parameter(name="CONFIG", help="a TOML, YAML or JSON file, or a run folder", show_default=False)
]
NO_KEYS: Keys = None


def read(source: str | None, keys: Keys, *, sends_requests: bool = False) -> Config:
    """The configuration that a command means. `sends_requests`: to the servers that the configuration names."""
    flags = tree(keys)
    base = base_tree(source, flags)
    if sends_requests and source is not None and Path(source).is_dir():
        files.refuse_unnamed_servers(Path(source), flags=flags)
    return config.resolve(config.merge(base, flags))


def base_tree(source: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What the flags are laid on: a file, a run folder's resolved configuration, or the embedded world's recipe.

    A file that names neither model nor data is itself laid on that recipe.
    """
    if source is None:
        return files.on_recipe({}, flags)
    path = Path(source)
    if not path.is_dir():
        return files.on_recipe(files.read_file(path), flags)
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path} is no run folder: it has no config.json", remedy="name a run or a config file")
    return files.read_run(path, flags=flags)
