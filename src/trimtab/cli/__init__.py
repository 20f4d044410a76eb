"""Words -> configuration -> stage; errors -> exit codes.

Nothing heavy is imported before a command needs it: `trimtab --help` must answer at once.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from trimtab.cli.app import app
from trimtab.errors import StopError, TrimtabError


def main(argv: Sequence[str] | None = None) -> None:
    """The console script. Exits 0 done, 1 failed, 2 the words were wrong, 128 + n stopped by signal n."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _allow_any_letter()
    try:
        _call(words)
    except TrimtabError as error:
        _fail(str(error), error.exit_code, debug)
    except CycloptsError as error:
        from trimtab.config.flags import as_config_error

        _fail(str(as_config_error(error)), 2, debug)
    except KeyboardInterrupt:
        _fail("stopped", 130, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _fail(*_foreign(error), debug)


def _allow_any_letter() -> None:
    """Let a terminal or pipe that knows fewer letters than UTF-8 show the others as what comes nearest."""
    codecs.register_error("trimtab", _nearest_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="trimtab")


_NEAREST = {"→": "->", "…": "...", "–": "-", "—": "-", "−": "-", "·": "*", "×": "x", "≥": ">=", "≤": "<=", "’": "'"}


def _nearest_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    escape = "".join(_NEAREST.get(c, c.encode("ascii", "backslashreplace").decode()) for c in letters)
    return escape, error.end


def _foreign(error: Exception) -> tuple[str, int]:
    """What an error that is not trimtab's own means, with its remedy, and the exit code."""
    if _is_of_a_package(error):
        return f"a package cannot be loaded: {error}\n  → {_OF_PACKAGES}", 1
    match error:
        case OSError():
            return f"{error.filename or 'a file'}: {error.strerror or error}\n  → {_OF_THE_SYSTEM}", _code_of(error)
        case RecursionError():
            return "what was read is nested too deeply\n  → write it flat, or make it again", 2
        case ValueError() if "null byte" in str(error):
            return "a name holds a NUL, which no path may\n  → write it without", 2
        case ValueError() if "integer string conversion" in str(error):
            return "a number has more digits than can be read\n  → write a smaller one", 2
        case _:
            defect = "this is a defect of trimtab; --debug shows where"
            return f"unexpected {type(error).__name__}: {error}\n  → {defect}", 1


def _is_of_a_package(error: Exception) -> bool:
    """Whether a package, or a library that it loads (torch's of CUDA), is not there."""
    if isinstance(error, ImportError):
        return not (error.name or "").startswith("trimtab")
    return isinstance(error, OSError) and error.errno is None and "shared object" in str(error)


_OF_PACKAGES = "`trimtab doctor` lists what is installed; `pip install 'trimtab[all]'` installs what is not"
_OF_THE_SYSTEM = "the system refused that: check the name, its length, its permissions and the disk"


def _call(words: list[str]) -> None:
    """Find the command, read its flags and call it; parameters that are not parsed get the words themselves."""
    if "RANK" in os.environ:
        from trimtab.commands import launch

        with launch.one_of_several() as is_wanted:
            if is_wanted(words):
                _call_command(words)
    else:
        _call_command(words)


def _call_command(words: list[str]) -> None:
    flags = words
    if any(word.lower() in ("true", "false") for word in words):
        from trimtab.config.flags import join_booleans

        flags = join_booleans(words)
    command, arguments, not_parsed = app.parse_args(flags, exit_on_error=False, print_error=False, help_on_error=False)
    command(*arguments.args, **arguments.kwargs, **dict.fromkeys(not_parsed, tuple(words)))


def _code_of(error: OSError) -> int:
    """2 where the user's words name something that cannot be, 1 where the machine failed."""
    words = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EACCES}
    return 2 if error.errno in words else 1


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        raise  # noqa: PLE0704  # called from an except block only: the traceback is what was asked for
    if not message:  # another process has spoken
        sys.exit(code)
    from trimtab.progress import printable

    print("trimtab: " + "\n".join(printable(line) for line in message.split("\n")), file=sys.stderr)
    sys.exit(code)


__all__ = ["StopError", "app", "main"]
