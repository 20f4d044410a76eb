"""The other end of a `PythonVerifier`: `python verifier_worker.py FILE FUNCTION`, one JSON line in, one out.

It runs a person's function on answers that a model wrote, in a process of its own, and imports nothing of trimtab. What
the function prints goes to standard error.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(path: Path, name: str) -> Callable[..., Any]:
    """The function of the file. Raises what the file raises, and ImportError where it is not there."""
    spec = importlib.util.spec_from_file_location("verifier", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ImportError(f"{path.name} has no function {name!r}; it has {', '.join(names) or 'none'}")
    return function  # type: ignore[no-any-return]  # a person's own


def main() -> None:
    tasks, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what the function reads and prints is not the conversation
    os.dup2(2, 1)

    def reply(**fields: object) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    try:
        function = load(Path(sys.argv[1]).resolve(), sys.argv[2])
        takes_row = len(inspect.signature(function).parameters) > 2
    except BaseException as error:  # a file may do anything, sys.exit() too
        reply(fault=_words(error))
        return
    reply(ready=True)
    for line in tasks:
        task = json.loads(line)
        try:
            value = function(task["prompt"], task["answer"], *([task["row"]] if takes_row else []))
        except BaseException as error:
            reply(fault=_words(error))
        else:
            reply(value=_number(value))


def _number(value: object) -> object:
    try:
        return float(value)  # type: ignore[arg-type]  # numpy's and torch's numbers, too
    except Exception:
        return repr(value)[:100]


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


if __name__ == "__main__":
    main()
