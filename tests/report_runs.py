"""Run folders made by hand for the report, and what the report then says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from trimtab.config import Config, resolve
from trimtab.records import Answer, Verdict
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import report

FAMILIES = ("math", "writing")
WIN, LOSS, TIE = 2.0, 1.0, 1.5


class Lines:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str, /) -> None:
        self.said.append(line)


def a_config(out: Path, **tree: Any) -> Config:
    base = {"model": "windtunnel", "data": "windtunnel", "benchmark": "windtunnel", "judge": "oracle", "out": str(out)}
    return resolve(base | tree)


def a_run(
    root: Path,
    preferences: dict[str, list[float | None]],
    *,
    after: str = "a good answer",
    before: str = "a poor answer",
    prompt: str = "question",
    growth: int = 0,
    seed: int = 0,
) -> Folder:
    """A run folder with every artefact; `preferences` by judge, one a prompt."""
    folder = Folder(root)
    n = len(next(iter(preferences.values()), [])) or 20
    olds = [f"{before} {'x' * (i % 7)}" for i in range(n)]
    news = [f"{after} {'y' * (i % 5 + growth)}" for i in range(n)]

    def answers(texts: list[str], generator: str) -> list[dict[str, Any]]:
        return [
            Answer(f"p{i}", f"{prompt} {i}", text, generator, FAMILIES[i % 2], n_tokens=len(text.split())).to_json()
            for i, text in enumerate(texts)
        ]

    write_json(folder.baseline_answers("windtunnel"), answers(olds, "tiny"))
    write_json(folder.answers("windtunnel"), answers(news, "tiny aligned"))
    for judge, row in preferences.items():
        verdicts = [
            Verdict(f"p{i}", f"{prompt} {i}", old, new, "tiny", "tiny aligned", judge, preference, FAMILIES[i % 2])
            for i, (old, new, preference) in enumerate(zip(olds, news, row, strict=True))
        ]
        write_json(folder.verdicts("windtunnel", judge), [verdict.to_json() for verdict in verdicts])
    write_json(
        folder.verdicts("windtunnel", "scores"),
        {
            "baseline": [0.25] * n,
            "model": [0.5 + 0.25 * (i % 2) for i in range(n)],
            "families": list(FAMILIES) * (n // 2),
        },
    )
    gaps = [2.0] * 30 + [-1.0] * 8 + [0.0] * 2
    write_json(
        folder.heldout,
        {
            "n": 40,
            "ids": [f"h{i}" for i in range(40)],
            "before": {"accuracy": 0.5, "reward_gap": 0.0, "reward_gaps": [0.0] * 40},
            "after": {"accuracy": 0.775, "reward_gap": 1.3, "reward_gaps": gaps},
        },
    )
    write_json(folder.data / "audit.json", AUDIT)
    versions = {"trimtab": "0", "python": "3.11", "packages": {"torch": "2.13.0"}, "hardware": {"cores": 2}}
    write_json(folder.versions, versions)
    folder.metrics.write_text("".join(json.dumps(metrics_row(step, seed)) + "\n" for step in range(1, 101)))
    return folder


JUDGE = {
    "judge": "gpt-4o (weighted)",
    "model": "gpt-4o",
    "base_url": "https://api.openai.com/v1",
    "rubric": "weighted",
    "prompt_sha256": "784227e6" + "0" * 56,
    "order": "official seeded order",
    "texts": {"the judge's prompt": {"sha256": "784227e6" + "0" * 56, "official": True}},
    "n_asked": 1610,
    "n_cached": 12,
    "n_failed": 3,
    "prompt_tokens": 1_300_000,
    "completion_tokens": 1610,
    "cost_usd": 3.25,
    "notes": [],
    "n_prompts": 60,
    "n_missing": 0,
    "allow_missing": False,
    "reasons": "",
}
DATASETS = ("helpful_base", "koala", "oasst")
CATEGORIES = 8
BASELINE = "gpt4_1106_preview"


def a_judged_run(
    root: Path,
    aligned: list[float | None],
    unaligned: list[float | None] | None = None,
    *,
    record: dict[str, Any] | None = None,
    canaries: list[dict[str, Any]] | None = None,
    baseline: str = BASELINE,
    instruction: str = "question",
    answer: str = "an aligned answer",
    longer: int = 0,
    benchmark: str = "alpaca_eval",
) -> Folder:
    """A run judged against a published baseline: preferences for the aligned and, if given, the unaligned model."""
    folder = Folder(root)
    n = len(aligned)
    texts = {
        "baseline": [f"a published answer {'b' * (i % 11 * 9)}" for i in range(n)],
        "aligned": [f"{answer} {'y' * (i % 5 + longer * i)}" for i in range(n)],
        "unaligned": [f"an unaligned answer {'x' * (i % 7)}" for i in range(n)],
    }
    makers = {"baseline": baseline, "aligned": "tiny aligned", "unaligned": "tiny"}

    def answers(side: str) -> list[dict[str, Any]]:
        return [
            Answer(f"{instruction} {i}", f"{instruction} {i}", text, makers[side], DATASETS[i % 3]).to_json()
            for i, text in enumerate(texts[side])
        ]

    def verdicts(side: str, preferences: list[float | None]) -> list[dict[str, Any]]:
        return [
            Verdict(
                f"{instruction} {i}", f"{instruction} {i}", texts["baseline"][i], texts[side][i],
                baseline, makers[side], "gpt-4o (weighted)", preference, DATASETS[i % 3],
            ).to_json()
            for i, preference in enumerate(preferences)
        ]  # fmt: skip

    write_json(folder.baseline_answers(benchmark), answers("baseline"))
    write_json(folder.answers(benchmark), answers("aligned"))
    write_json(folder.verdicts(benchmark), verdicts("aligned", aligned))
    if unaligned is not None:
        write_json(folder.unaligned_answers(benchmark), answers("unaligned"))
        write_json(folder.unaligned_verdicts(benchmark), verdicts("unaligned", unaligned))
    write_json(folder.judge(benchmark), JUDGE | {"n_prompts": n} | (record or {}))
    write_json(folder.canaries(benchmark), [{"judge": "gpt-4o (weighted)", "canaries": canaries or []}])
    return folder


def a_marked_run(
    root: Path, aligned: list[float], unaligned: list[float] | None = None, *, record: dict[str, Any] | None = None
) -> Folder:
    """An MT-Bench run: one mark a question, given to its first turn; the second has one less."""
    folder = Folder(root)
    rows: list[dict[str, Any]] = []
    for name, marks in (("tiny aligned", aligned), ("tiny", unaligned or [])):
        conversations = [
            {
                "question_id": 81 + i,
                "model_id": name,
                "choices": [{"index": 0, "turns": [f"first {'z' * i}", "second"]}],
                "n_tokens": 9 + i,
            }
            for i in range(len(marks))
        ]
        path = folder.answers("mt_bench", turns=True)
        if name == "tiny":
            path = folder.unaligned_answers("mt_bench", turns=True)
        if marks:
            lines(path, conversations)
        rows += [
            {
                "question_id": 81 + i, "model": name, "judge": ["gpt-4o", "single-v1"], "score": mark - (turn - 1),
                "turn": turn, "user_prompt": "", "judgment": "", "tstamp": 0.0,
            }
            for i, mark in enumerate(marks)
            for turn in (1, 2)
        ]  # fmt: skip
    lines(folder.verdicts("mt_bench", turns=True), rows)
    grader = {"judge": "gpt-4o", "rubric": "single-answer grading", "order": "none", "n_prompts": 2 * len(aligned)}
    write_json(folder.judge("mt_bench"), JUDGE | grader | (record or {}))
    return folder


AUDIT = {
    "rows": 110,
    "kept": 100,
    "dropped": 10,
    "dropped_by_reason": {"empty response": 7, "duplicate": 3},
    "lengths": {"characters": {"chosen": {"median": 10.0, "mean": 11.0, "p95": 20.0, "maximum": 30}}},
    "length_bias": {"characters": {"chosen_longer": 0.5, "same_length": 0.1, "cohens_d": None, "auc": 0.5}},
    "overlap_with_evaluation": {"rows": 2, "first_ids": ["a", "b"]},
    "sample": {"prompt": "<user>hi", "chosen": "yes", "rejected": "no"},
    "train": 60,
    "heldout": 40,
}


def metrics_row(step: int, seed: int) -> dict[str, Any]:
    """Chosen stay active, rejected leave by half: selective."""
    return {
        "step": step, "epoch": step / 50, "seconds": 0.5 * step, "loss": 2.0 - step / 100 + seed / 10, "grad_norm": 1.0,
        "learning_rate": 1e-4, "rewards/chosen": 0.1, "rewards/rejected": -0.2, "rewards/accuracies": 0.7,
        "rewards/margins": 0.3, "logps/chosen": -10.0, "logps/rejected": -12.0, "active/chosen": 1.0,
        "active/rejected": max(0.2, 1 - step / 50), "active/pair": 1.0, "skipped_backward": 0.0, "tokens": 1000,
        "tokens_per_second": 500.0, "peak_memory_bytes": 10**8,
    }  # fmt: skip


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=True))


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_report(config: Config) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(set_up(config).folder.report("json").read_text())
    return tree


def page(config: Config, suffix: str = "html") -> str:
    return set_up(config).folder.report(suffix).read_text(encoding="utf-8")


def make_report(config: Config) -> dict[str, Any]:
    report.main(set_up(config), reporter=Lines())  # type: ignore[arg-type]  # a reporter that only says
    return read_report(config)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def chromium(page_file: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--no-sandbox", "--enable-logging=stderr"]
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, "--headless", *quiet, f"--user-data-dir={profile}", *flags, page_file.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip


def width_on_a_phone(text: str, folder: Path) -> int:
    """How wide the page lays itself out in a frame 360 px wide, every fold open; a probe in the outer page measures."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    probe = folder / "probe.html"
    probe.write_text(
        '<!doctype html><title>?</title><iframe style="width:360px;height:700px;border:0" '
        f'srcdoc="{html.escape(bare)}"></iframe>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "page.querySelectorAll('details').forEach(fold => { fold.open = true; });"
        "document.title = 'width ' + page.documentElement.scrollWidth; }</script>",
        encoding="utf-8",
    )
    document = chromium(probe, folder / "profile", "--dump-dom", "--virtual-time-budget=3000")
    width = re.search(r"<title>width (\d+)</title>", document.stdout)
    assert width is not None
    return int(width[1])
