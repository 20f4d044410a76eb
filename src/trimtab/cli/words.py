"""Words → configuration, and values → what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from trimtab.config import Config


def read(words: Sequence[str], *, allow: frozenset[str] = frozenset(), asks: bool = False) -> tuple[Config, set[str]]:
    """The configuration that the words mean, and the bare switches among them.

    `asks`: the command sends requests to the servers that the configuration names.
    """
    from trimtab import config
    from trimtab.config import parsing as written

    switches, rest = take_switches(words, allow)
    named, flags = written.read_flags(rest)
    if len(named) > 1:
        raise ConfigError(f"unexpected word {named[1]!r}", remedy="keys are written --section.key VALUE")
    tree = base(named[0] if named else None, flags)
    if asks and named and Path(named[0]).is_dir():
        written.refuse_unnamed_servers(Path(named[0]), said=flags)
    return config.resolve(config.merge(tree, flags)), switches


def take_switches(words: Sequence[str], allow: frozenset[str]) -> tuple[set[str], list[str]]:
    """The switches among the words, and the other words."""
    switches = {word[2:] for word in words if word.startswith("--") and word[2:] in allow}
    return switches, [word for word in words if not (word.startswith("--") and word[2:] in switches)]


def base(named: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What the flags are laid on: a file, a run folder's resolved configuration, or the embedded world's recipe.

    A file that names neither model nor data is itself laid on that recipe.
    """
    from trimtab.config import parsing as written

    if named is not None:
        path = Path(named)
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ConfigError(
                    f"{path} is no run folder: it has no config.json", remedy="name a run or a config file"
                )
            return written.read_run(path, said=flags)
        return written.grounded(written.read_file(path), flags)
    return written.grounded({}, flags)


def reporter(quiet: bool) -> Any:
    import logging

    from trimtab import progress

    reporter = progress.reporter(quiet=quiet)

    class Say(logging.Handler):
        """The engine's warnings, as lines that do not cut into a progress bar."""

        def emit(self, record: logging.LogRecord) -> None:
            reporter.say(record.getMessage())

    logger = logging.getLogger("trimtab")
    logger.handlers, logger.propagate = [Say()], False
    return reporter


def show(value: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    """Print `lines(value)`, or the value as one JSON object: a tree, or what its `to_json` makes."""
    if as_json:
        tree = value.to_json() if hasattr(value, "to_json") else value
        text = json.dumps(tree, ensure_ascii=False, allow_nan=False)
        print(text.encode("utf-8", "backslashreplace").decode("utf-8"))  # a lone surrogate as JSON writes it
        return
    from trimtab.progress import printable

    for line in lines(value):
        print(printable(line))
