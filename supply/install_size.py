"""What `pip install .` brings without extras: every package, its size, who wants it, what it is for, and whether a
default run with an adapter and its report import it. Run by `make install-size` with a fresh environment's own Python;
the table goes into docs/install.md between its marks.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from importlib.metadata import Distribution, distribution, distributions, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).resolve().parent.parent / "docs" / "install.md"
BEGIN, END = "<!-- install-size: begin -->", "<!-- install-size: end -->"
PURPOSES = {
    "torch": "tensors and gradients",
    "transformers": "models and chat templates",
    "peft": "LoRA and DoRA adapters",
    "safetensors": "weights on disk",
    "numpy": "arrays",
    "scikit-learn": "the length model's regression",
    "scipy": "distributions behind intervals and tests",
    "pydantic": "strict configuration",
    "pyyaml": "recipes in YAML",
    "cyclopts": "the command line",
    "rich": "progress and tables in the terminal",
    "jinja2": "report pages and chat templates",
    "matplotlib": "plots of the report",
}
# what every environment has, and no package asked for
NOT_COUNTED = {"pip", "setuptools", "wheel", "trimtab"}
RUN = ["run", "--adapter", "lora", "--train.max-steps", "2", "--data.limit", "64", "--benchmark.limit", "64", "--quiet"]
INPUTS = ["--model", "windtunnel", "--data", "windtunnel", "--benchmark", "windtunnel", "--judge", "oracle"]


def name_of(found: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()


def requirements(found: Distribution) -> set[str]:
    """Names that it requires without extras, on this machine."""
    parsed = [Requirement(line) for line in found.requires or []]
    here = [line for line in parsed if line.marker is None or line.marker.evaluate({"extra": ""})]
    return {re.sub(r"[-_.]+", "-", line.name).lower() for line in here}


def megabytes(found: Distribution) -> float:
    files = [Path(str(file.locate())) for file in found.files or []]
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def imported() -> set[str]:
    """Packages of which help and a default run with an adapter, judged and reported, have imported something."""
    from trimtab import cli  # noqa: PLC0415  # what is measured is what this import and the run bring

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cli.app.help_print([])
        cli.main([*RUN, *INPUTS, "--out", f"{folder}/run"])
    owners = packages_distributions()
    tops = {module.partition(".")[0] for module in list(sys.modules)}
    return {re.sub(r"[-_.]+", "-", name).lower() for top in tops for name in owners.get(top, [])}


def table() -> str:
    installed = {name_of(found): found for found in distributions()}
    direct = requirements(distribution("trimtab"))
    used = imported()
    if idle := sorted(direct - used):
        raise SystemExit(f"required and not imported by a default run: {', '.join(idle)}")
    rows = {name: megabytes(found) for name, found in installed.items() if name not in NOT_COUNTED}
    text = [
        f"{len(rows)} packages, {sum(rows.values()):,.0f} MB, on Python {sys.version.split()[0]} ({sys.platform}).",
        "",
    ]
    text += ["| package | MB | wanted by | what it is for | imported by a default run |", "|---|---|---|---|---|"]
    for name, size in sorted(rows.items(), key=lambda row: (row[0] not in direct, -row[1])):
        parents = sorted(other for other, found in installed.items() if name in requirements(found) and other != name)
        wanted = "trimtab" if name in direct else ", ".join(parents[:3]) or "?"
        purpose = PURPOSES[name] if name in direct else (installed[name].metadata["Summary"] or "").strip()[:80]
        version = installed[name].version
        text.append(f"| {name} {version} | {size:,.1f} | {wanted} | {purpose} | {'yes' if name in used else 'no'} |")
    return "\n".join(text)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
