"""A page of every kind in headless Chromium, on a phone and a desk, light and dark: nothing is wider than the screen,
no table scrolls sideways, the browser has nothing to complain of, every letter can be read, and the first screen holds
at most 250 words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from devtools import CHROMIUM, CONTRASTS, TOO_WIDE, Browser, browser
from probe_runs import leaving, pairs, write
from report_runs import JUDGE, LOSS, WIN, a_config, a_judged_run, a_run, make_report
from sweep_figures import numbers, point, truth, within
from trimtab.analysis.token_calibration import Predictions, tabulate
from trimtab.progress import SilentReporter
from trimtab.reporting import render
from trimtab.runtime import set_up
from trimtab.studies.calibration.numbers import CalibrationNumbers, measure
from trimtab.studies.calibration.page import page as calibration_page
from trimtab.studies.calibration.read import SeedReadings
from trimtab.studies.comparison import command as compare
from trimtab.studies.length_probe import command as probe
from trimtab.studies.sweep.page import sweep_page
from trimtab.studies.sweep.result import Cost, SweepResult

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
WORDS = 250
AA = 4.5  # WCAG 2.2, level AA, for text of this size
LONG = "an-organisation-with-a-long-name/a-model-with-an-even-longer-name-without-any-break-Q4_K_M-GGUF"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


def report_page(folder: Path) -> Path:
    a_run(folder, {"oracle": [WIN, LOSS] * 20, "biased": [1.3, 1.9, 1.6, 1.1] * 10}, after="z" * 400, prompt="x" * 300)
    make_report(a_config(folder, data="owner/" + "long-name" * 12))
    return folder / "report.html"


def pooled_page(folder: Path) -> Path:
    """Three seeds, whose regimes and symptoms could each want a sentence of the first screen."""
    for seed in range(3):
        a_run(folder / f"seed-{seed}", {"oracle": [WIN, LOSS] * 20}, seed=seed, growth=9)
    make_report(a_config(folder, seeds=3))
    return folder / "report.html"


def judged_page(folder: Path) -> Path:
    a_judged_run(folder, [1.9] * 60, [1.2] * 60, baseline=LONG, record=JUDGE | {"judge": LONG})
    make_report(a_config(folder, benchmark="alpaca_eval", judge="openai:gpt-4o"))
    return folder / "report.html"


def comparison_page(folder: Path) -> Path:
    for name, row in (("a", [WIN, WIN, LOSS] * 20), ("b", [LOSS, WIN, LOSS] * 20)):
        make = folder / f"{name}-{LONG.replace('/', '-')}"
        a_run(make, {"oracle": row})
        a_config(make)
        make_report(a_config(make))
    result = compare.main(*map(str, sorted(folder.iterdir())))
    compare.write(result, str(folder / "out"), command="trimtab compare a b", reporter=SilentReporter())
    return folder / "out" / "comparison.html"


def sweep_page_file(folder: Path) -> Path:
    regimes = ("selective", "starved", "linear", "selective", "selective", "selective")
    points = [
        point(
            f"margin={margin}-beta={beta}",
            numbers(rates=[truth(40.0 + 4 * i)], length=within(20.0 + i, 1.0, unit="tokens"), regimes=[regimes[i]]),
            **{"objective.margin": margin, "objective.beta": beta},
        )
        for i, (margin, beta) in enumerate((m, b) for m in (0.5, 1.0, 2.0) for b in (0.1, 0.3))
    ]
    tree = {"model": {"name": LONG}, "data": {"source": LONG}}
    keys = ("objective.margin", "objective.beta")
    result = SweepResult(LONG, f"trimtab sweep {LONG}", keys, (0, 1, 2), tree, tuple(points), Cost(1.0, {}, 2.0))
    folder.mkdir()
    page = folder / "sweep.html"
    page.write_text(render.page_html(sweep_page(result)), encoding="utf-8")
    return page


def probe_page(folder: Path) -> Path:
    rows, difference = pairs(240)
    for name in ("apo_hinge_zero", "dpo"):
        last = leaving(difference, slope=0.05, seed=0)
        write(folder / name, objective=name, last_visit=last, rows=rows)
    probe.main([str(folder / "apo_hinge_zero"), str(folder / "dpo")], reporter=SilentReporter())
    return folder / "apo_hinge_zero" / "probe.html"


def calibration_page_file(folder: Path) -> Path:
    rng, n = np.random.default_rng(0), 40
    table = tabulate(
        [
            Predictions(-rng.exponential(size=9), rng.random(9), rng.integers(0, 2, 9).astype(float), rng.random(9))
            for _ in range(n)
        ]
    )
    gaps_P = rng.normal(0.5, 1.0, n)
    readings = SeedReadings(gaps_P / 2, gaps_P, table, table, rng.random(n), rng.normal(size=n), np.full(n, 9.0))
    setup = set_up(a_config(folder, model=LONG, data="owner/" + "long-name" * 12))
    run = SimpleNamespace(setup=setup, seeds=(0,), pairs=range(n), n_chosen_tokens=9 * n, command="trimtab calibrate")
    folder.mkdir(exist_ok=True)
    page = folder / "calibration.html"
    text = render.page_html(calibration_page(CalibrationNumbers(run, measure([readings]), ())))  # type: ignore[arg-type]
    page.write_text(text, encoding="utf-8")
    return page


PAGES: dict[str, Callable[[Path], Path]] = {
    "run": report_page,
    "seeds": pooled_page,
    "judged": judged_page,
    "comparison": comparison_page,
    "sweep": sweep_page_file,
    "probe": probe_page,
    "calibration": calibration_page_file,
}


@pytest.mark.parametrize("kind", PAGES)
def test_it_fits_and_can_be_read(chromium: Browser, kind: str, tmp_path: Path) -> None:
    page = chromium.open(PAGES[kind](tmp_path / kind).as_uri())
    first_screen = page.value(
        "[...document.querySelectorAll('header.top, nav, #verdict')].map((e) => e.innerText).join(' ')"
    )
    assert len(first_screen.split()) <= WORDS, first_screen
    page.value("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    for width, dark in product((390, 1200), (False, True)):
        page.look(width=width, dark=dark)
        look = (kind, width, "dark" if dark else "light")
        assert page.value(TOO_WIDE) == [], look
        assert {text: ratio for text, ratio in page.value(CONTRASTS) if ratio < AA} == {}, look
    assert page.complaints() == [], kind
    page.close()


def test_a_table_that_is_too_wide_is_seen(chromium: Browser, tmp_path: Path) -> None:
    """The measures of this file, against a page that breaks both rules."""
    file = tmp_path / "bad.html"
    cells = "".join(f"<td>word-{i}-word</td>" for i in range(30))
    file.write_text(f'<div style="overflow-x:auto"><table><tr>{cells}</tr></table></div><p style="color:#999">pale</p>')
    page = chromium.open(file.as_uri(), width=390)
    assert "DIV" in "".join(page.value(TOO_WIDE))
    assert min(ratio for _, ratio in page.value(CONTRASTS)) < AA
    file.write_text('<svg width="900" height="9"></svg>')
    page = chromium.open(file.as_uri(), width=390)
    assert [name.split(".")[0] for name in page.value(TOO_WIDE)] == ["the page itself", "svg"]
    page.close()
