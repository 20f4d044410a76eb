"""Markdown of a page: what is tidied, what is left out, what is never touched."""

from __future__ import annotations

from trimtab.records import Estimate
from trimtab.reporting import render
from trimtab.reporting.sections import (
    Block,
    Code,
    Fold,
    Forest,
    ForestRow,
    Page,
    Section,
    Sentence,
    SummaryEntry,
    Table,
    Text,
)


def a_page(*blocks: Block) -> Page:
    return Page(
        kind="report",
        title="A title",
        subject=[("data", "some")],
        summary=[SummaryEntry("Did it help?", [Sentence("It **did**.")], main=True)],
        sentences=[Sentence("It **did**.")],
        sections=[Section("s", "S", "A section", blocks)],
        json_name="report.json",
    )


def test_blank_lines_are_collapsed_but_not_inside_a_fence() -> None:
    text = render.page_md(a_page(Text("before"), Code("first\n\n\n\nlast"), Text(""), Text("after")))
    assert "```text\nfirst\n\n\n\nlast\n```" in text
    assert "\n\n\n" not in text.replace("first\n\n\n\nlast", "")
    assert text.index("before") < text.index("first") < text.index("after")


def test_a_fence_that_a_text_holds_does_not_end_the_block() -> None:
    hostile = "```\n\n\n\n```text\n\n\n\n# not a heading"
    assert f"````text\n{hostile}\n````" in render.page_md(a_page(Code(hostile)))


def test_details_are_on_the_page_and_not_in_the_markdown() -> None:
    blocks = (
        Table(["step", "loss"], [["1", "0.25"]], title="the curves", detail=True),
        Fold("the plan", [Text("planned so")], detail=True),
        Table(["", "n"], [["all", "40"]], title="every judge"),
    )
    page, text = render.page_html(a_page(*blocks)), render.page_md(a_page(*blocks))
    for detail in ("the curves", "0.25", "planned so"):
        assert detail in page
        assert detail not in text
    assert "Every judge:\n\n|  | n | \n| --- | --- |\n| all | 40 | " in text


def test_a_forest_of_changes_has_a_legend_and_another_has_none() -> None:
    estimate = Estimate(0.5, (0.4, 0.6), n=10, method="by hand")
    with_before = render.page_html(a_page(Forest([ForestRow("all", estimate, was=0.2)], "scores", even=None)))
    without = render.page_html(a_page(Forest([ForestRow("all", estimate)], "scores", even=None)))
    assert '<ul class="legend">' in with_before
    assert '<ul class="legend">' not in without
