"""What a command does where verdicts are missing."""

from __future__ import annotations

from trimtab.analysis.winrate import too_many_missing
from trimtab.errors import RunError


def require_judged(what: str, *, n: int, n_missing: int, allowed: bool) -> None:
    """Raises RunError when more than 1 % of `n` is missing, unless that is allowed. What is missing is never a loss."""
    if too_many_missing(n_missing, of=n) and not allowed:
        raise RunError(
            f"{what}: {n_missing} of {n} verdicts are missing ({100 * n_missing / n:.1f} %, more than 1 %), "
            "so no number is given",
            remedy="judge the missing ones, or leave them out knowingly: --allow-missing",
        )
