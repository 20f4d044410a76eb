"""Report: everything measured, in words first, as report.json, report.html and report.md.

One run and several seeds give the same three files with the same keys. With several seeds every interval speaks of a
new seed on new prompts (`analysis.seeds`); with one it speaks of new prompts only, and the report says so.
"""

from __future__ import annotations

from trimtab import store
from trimtab.config import config_digest
from trimtab.progress import Reporter
from trimtab.records import digest
from trimtab.reporting import read, render
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.numbers.check import check_numbers
from trimtab.reporting.numbers.report import FORMAT, report_of
from trimtab.reporting.page.report import report_page
from trimtab.reporting.words.report import report_words
from trimtab.runtime.run_setup import RunSetup
from trimtab.version import __version__


def main(setup: RunSetup, *, reporter: Reporter) -> None:
    """Report a run: one seed, or several pooled into the folder that holds theirs."""
    target, seeds = setup.folder, setup.each_seed()
    files = [store.file_digest(seed.folder.intact(path)) for seed in seeds for path in read.files(seed.folder, seed)]
    check = read.check(target, check_numbers)
    files += [store.file_digest(target.check)] if check is not None else []
    inputs = digest([FORMAT, __version__, config_digest(setup.config), files])
    if target.is_done("report", inputs):
        reporter.say("report: nothing has changed")
        return
    report = report_of([read.read(seed.folder, seed) for seed in seeds], setup, check=check)
    words = report_words(report)
    page = report_page(report, words)
    store.write_json(target.report("json"), fields_form(report) | fields_form(words))
    store.write_text(target.report("html"), render.page_html(page))
    store.write_text(target.report("md"), render.page_md(page))
    target.finish("report", inputs, [target.report(suffix) for suffix in ("json", "html", "md")])
    for sentence in (*words.headline[:1], *words.regime):
        reporter.say(f"report: {sentence.text.replace('**', '')}")
