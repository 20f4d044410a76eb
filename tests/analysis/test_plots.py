"""The pictures: whole, deterministic, self-contained, and drawing what they were told."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from trimtab.analysis import plots
from trimtab.analysis.calibration import calibration
from trimtab.errors import DataError

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    {
        "step": step,
        "loss": 2 - step / 40,
        "rewards/chosen": step / 50,
        "rewards/rejected": -step / 20,
        "rewards/margins": step / 15,
        "active/chosen": 1.0,
        "active/rejected": 1 - step / 25 if step != 7 else None,
        "pull/chosen": 1.0,
        "pull/rejected": 1 / step,
        "skipped_backward": step / 50,
        "skipped_forward": step / 100,
    }
    for step in range(1, 21)
]
ONE = [{name: [row[name] for row in ROWS] for name in ROWS[0]}]
THREE = [ONE[0], ONE[0] | {"loss": [1.0] * 20}, ONE[0]]

DRAWINGS: dict[str, Callable[[], str]] = {
    "loss": lambda: plots.loss_plot(ONE, step_zero=2.0),
    "loss of three seeds": lambda: plots.loss_plot(THREE),
    "radar": lambda: plots.radar_plot(["a", "b & c", "<d>"], {"before": [1, 2, 3], "after": [4, None, 6]}, top=10),
    "reward": lambda: plots.reward_plot(ONE),
    "active": lambda: plots.active_plot(THREE),
    "pull": lambda: plots.pull_plot(ONE),
    "saved": lambda: plots.saved_plot(ONE),
    "length": lambda: plots.length_plot([0, 10, 20, 30], [0.5, 0.5, 0], [0, 0.25, 0.75], unit="tokens"),
    "reliability": lambda: plots.reliability_plot(
        calibration([0.1, -0.2, 0.3]).bins, calibration([1.0, 2.0, -0.5]).bins
    ),
    "token reliability": lambda: plots.token_reliability_plot((), calibration([1.0, 2.0, -0.5]).bins),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_one_svg_that_scales_and_brings_nothing_along(name: str) -> None:
    svg = DRAWINGS[name]()
    root = ET.fromstring(svg)  # noqa: S314  our own drawing
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text
    assert not re.search(r"<style|<script|<metadata|<!DOCTYPE|<\?xml|https?://(?!www\.w3\.org/2000/svg)", svg)
    assert all("href" not in key or value.startswith("#") for e in root.iter() for key, value in e.attrib.items())
    assert any(e.tag == f"{SVG}text" for e in root.iter())
    assert len(svg) < 40_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_same_words_same_bytes(name: str) -> None:
    assert DRAWINGS[name]() == DRAWINGS[name]()


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_reference_has_its_target(name: str) -> None:
    svg = DRAWINGS[name]()
    targets = set(re.findall(r'\bid="([^"]+)"', svg))
    pointed = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    assert pointed == targets


def test_ids_of_two_drawings_do_not_clash() -> None:
    a, b = (set(re.findall(r'\bid="([^"]+)"', DRAWINGS[name]())) for name in ("loss", "reward"))
    assert a
    assert b
    assert not a & b


def test_ink_comes_from_the_page() -> None:
    svg = DRAWINGS["reward"]()
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "var(--chosen,#0b8078)" in svg
    assert "#000000" not in svg


def test_lines_are_named_where_they_end() -> None:
    svg = DRAWINGS["reward"]()
    heights = {
        text: float(re.search(rf' y="([\d.]+)"[^>]*>{text}<', svg)[1])  # type: ignore[index]  # its absence fails too
        for text in ("gap", "chosen", "rejected")
    }
    assert heights["gap"] < heights["chosen"] < heights["rejected"]  # y grows downwards


def test_names_that_would_cover_each_other_are_pushed_apart() -> None:
    curves = {"step": [1, 2], "active/chosen": [1.0, 1.0], "active/rejected": [1.0, 1.0]}
    svg = plots.active_plot([curves])
    chosen, rejected = (float(re.search(rf' y="([\d.]+)"[^>]*>{t}<', svg)[1]) for t in ("chosen", "rejected"))  # type: ignore[index]  # its absence fails too
    assert abs(chosen - rejected) > 8


def test_labels_are_escaped() -> None:
    assert ">b &amp; c<" in DRAWINGS["radar"]()
    assert ">&lt;d&gt;<" in DRAWINGS["radar"]()


def test_a_metric_that_no_row_has_leaves_its_line_out() -> None:
    svg = plots.reward_plot([{"step": [1, 2], "rewards/chosen": [0.0, 0.1]}])
    assert ">chosen<" in svg
    assert ">gap<" not in svg


def test_the_settings_of_matplotlib_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    DRAWINGS["loss"]()
    assert dict(mpl.rcParams) == before


def test_nothing_to_plot_is_said() -> None:
    with pytest.raises(DataError, match="no training steps"):
        plots.loss_plot([])
    with pytest.raises(DataError, match="3 edges for 3 and 3 bins"):
        plots.length_plot([0, 1, 2], [1, 0, 0], [0, 1, 0], unit="tokens")


def test_radar_has_a_spoke_a_category_and_a_line_a_model() -> None:
    names = ["writing", "math", "coding", "stem"]
    text = plots.radar_plot(names, {"before": [5, 6, 7, 8], "after": [6, 7, 8, 9]}, top=10)
    assert all(f">{name}<" in text for name in names)
    assert "--before" in text
    assert "--after" in text


def test_radar_leaves_a_gap_where_there_is_no_mark() -> None:
    whole = plots.radar_plot(["a", "b", "c"], {"after": [5, 6, 7]}, top=10)
    gap = plots.radar_plot(["a", "b", "c"], {"after": [5, None, 7]}, top=10)
    assert len(gap) < len(whole)  # no filled area, one point less


@pytest.mark.parametrize(("names", "values"), [(["a", "b"], [1, 2]), (["a", "b", "c"], [1, 2])])
def test_radar_needs_three_categories_and_a_value_for_each(names: list[str], values: list[float]) -> None:
    with pytest.raises(DataError, match="categories"):
        plots.radar_plot(names, {"after": values}, top=10)
