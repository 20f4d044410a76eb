"""`python -m experiments`: run what is missing, then write docs/findings.md, its figures and experiments/numbers.json.

--quick        a form in minutes, into a folder of its own and marked as such
--page         only the page, from the runs that are there
--check        nothing is run or written: the runs that are there against the committed numbers; exit 1 naming those
               outside their interval (to make every run again: --runs NEW --out NEW, then --runs NEW --check)
--only NAME    one sweep (repeatable); --shared DIR: also the sweeps on real pairs; --workers N; --runs DIR; --out DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments import checking, making, page
from trimtab import store

NUMBERS = making.ROOT / "experiments" / "numbers.json"


def main(words: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 (failed, or numbers outside their intervals), 2 (words)."""
    asked = _parser().parse_args(words)
    runs = Path(asked.runs or ("runs/findings-quick" if asked.quick else "runs/findings"))
    unknown = set(asked.only) - {made.name for made in making.SWEEPS}
    if unknown:
        print(f"no such sweep: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    try:
        if not (asked.page or asked.check):
            making.make(
                making.Order(
                    runs=runs, quick=asked.quick, shared=asked.shared, workers=asked.workers, only=tuple(asked.only)
                )
            )
    except making.Refused as why:
        print(why, file=sys.stderr)
        return 1
    told = page.tell(runs, quick=asked.quick)
    if asked.check:
        return _check(told)
    out = asked.out or (runs if asked.quick else making.ROOT / "docs")
    page.write(told, page=out / "findings.md", numbers=out / "numbers.json" if asked.quick or asked.out else NUMBERS)
    print(f"findings: {out / 'findings.md'}, {len(told.numbers['numbers'])} numbers")
    return 0


def _check(told: page.Told) -> int:
    if not NUMBERS.is_file():
        print(f"there are no committed numbers ({NUMBERS})", file=sys.stderr)
        return 1
    lines = checking.outside(store.read_json(NUMBERS)["numbers"], told.numbers["numbers"])
    print("\n".join(lines) if lines else f"all {len(told.numbers['numbers'])} numbers are within their intervals")
    return 1 if lines else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for switch in ("--quick", "--page", "--check"):
        parser.add_argument(switch, action="store_true")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--shared", type=Path, metavar="DIR")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--runs", metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
