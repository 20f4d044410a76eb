"""`python -m experiments`: run what is missing, then write docs/findings.md, its figures and experiments/numbers.json.

--quick        a form in minutes, into a folder of its own and marked as such
--page         only the page, from the runs that are there
--real         only the page's parts on a real model, from the committed runs (of `experiments.real.runs`,
               `.rates` and `.settings`)
--check        nothing is run or written: the runs that are there against the committed numbers; exit 1 naming those
               outside their interval (to make every run again: --runs NEW --out NEW, then --runs NEW --check)
--only NAME    one sweep (repeatable); --shared DIR: also the sweeps on real pairs; --workers N; --runs DIR; --out DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments import compare_numbers, page, run_sweeps
from experiments.questions import real_rates, real_settings, real_weights
from experiments.revision import ROOT
from trimtab import store

NUMBERS = ROOT / "experiments" / "numbers.json"


def main(words: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 (failed, or numbers outside their intervals), 2 (words)."""
    arguments = _parser().parse_args(words)
    if arguments.real:
        for question in (real_weights.QUESTION, real_rates.QUESTION, real_settings.QUESTION):
            page.renew(question, page=ROOT / "docs" / "findings.md", numbers=NUMBERS)
        return 0
    quick: bool = arguments.quick
    runs = Path(arguments.runs or ("runs/findings-quick" if quick else "runs/findings"))
    unknown = set(arguments.only) - {spec.name for spec in run_sweeps.SWEEPS}
    if unknown:
        print(f"no such sweep: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    if not (arguments.page or arguments.check):
        options = run_sweeps.Options(
            runs=runs, quick=quick, real_data=arguments.shared, workers=arguments.workers, only=tuple(arguments.only)
        )
        try:
            run_sweeps.make(options)
        except run_sweeps.CannotRun as error:
            print(error, file=sys.stderr)
            return 1
    findings = page.findings(runs, quick=quick)
    if arguments.check:
        return _check(findings)
    out = arguments.out or (runs if quick else ROOT / "docs")
    numbers = out / "numbers.json" if quick or arguments.out else NUMBERS
    page.write(findings, page=out / "findings.md", numbers=numbers)
    print(f"findings: {out / 'findings.md'}, {len(findings.numbers['numbers'])} numbers")
    return 0


def _check(findings: page.Findings) -> int:
    if not NUMBERS.is_file():
        print(f"there are no committed numbers ({NUMBERS})", file=sys.stderr)
        return 1
    new = findings.numbers["numbers"]
    lines = compare_numbers.differences(store.read_json(NUMBERS)["numbers"], new)
    print("\n".join(lines) if lines else f"all {len(new)} numbers are within their intervals")
    return 1 if lines else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for switch in ("--quick", "--page", "--real", "--check"):
        parser.add_argument(switch, action="store_true")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--shared", type=Path, metavar="DIR")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--runs", metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
