"""Every error that trimtab raises on purpose.

    TrimtabError                      exit  what went wrong
    ├── UserError                      2    the user's words: one message, one remedy
    │   ├── ConfigError                2    a key, a value, a combination
    │   ├── DataError                  2    a data file, a column, a row
    │   └── ModelError                 2    a model folder, a tokenizer, a template
    └── RunError                       1    the run itself
        ├── StoreError                 1    disk, permission, a damaged artefact
        ├── NumericsError              1    non-finite numbers, step-zero guard
        ├── EndpointError              1    a server that refuses us, or is not there
        ├── PeerError                  1    another process of this job is gone, or has told why it failed
        └── StopError                143/130  a signal, after a checkpoint

A message says what, where and, in `remedy`, what to do about it. `assert` is for our own mistakes.
"""

from __future__ import annotations

from importlib.util import find_spec


class TrimtabError(Exception):
    """Root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}" if self.remedy else self.message


class UserError(TrimtabError):
    """The user's words were wrong; nothing has been started."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration key, value or combination that cannot be run."""


class DataError(UserError):
    """A data file, column or row that cannot be read as preference pairs."""


class ModelError(UserError):
    """A model folder, tokenizer or chat template that cannot be used."""


class RunError(TrimtabError):
    """The run failed after it had started; what was committed before is intact."""


class StoreError(RunError):
    """A file could not be written or does not verify."""


class NumericsError(RunError):
    """A number that must be finite, or must equal its known constant, is not."""


class EndpointError(RunError):
    """A server refuses every request, or does not answer any more; what it had answered is kept."""


class PeerError(RunError):
    """Another process of this job failed. It has no message where that process has told its own."""

    def __init__(self, exit_code: int, message: str = "") -> None:
        super().__init__(message, remedy="the same command goes on from the last checkpoint" if message else "")
        self.exit_code = exit_code


class StopError(RunError):
    """A signal asked the run to stop; a checkpoint was written first."""

    def __init__(self, message: str, *, signal_number: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = 128 + signal_number


def require_package(package: str, *, extra: str, reason: str) -> None:
    """Refuse what needs a package of an extra that is not installed. `reason`: what needs it."""
    if find_spec(package) is None:
        raise UserError(
            f"{reason} needs the package {package}, which is not installed", remedy=f"pip install 'trimtab[{extra}]'"
        )
