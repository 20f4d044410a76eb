"""How training went: curves, held-out pairs, milestones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.analysis import plots
from trimtab.analysis.milestone_plot import milestone_plot
from trimtab.analysis.selection import MEASURES, Measure, MilestoneNumbers
from trimtab.reporting.forest import EVEN
from trimtab.reporting.numbers import training as numbers
from trimtab.reporting.numbers.report import ObjectiveNumbers
from trimtab.reporting.numbers.training import (
    SIDES,
    HeldoutNumbers,
    HeldoutSide,
    ImitationNumbers,
    NoiseNumbers,
    SeedTrainingNumbers,
    TrainingNumbers,
)
from trimtab.reporting.read import Selection
from trimtab.reporting.sections import Block, Figures, Forest, ForestRow, Plot, Section, Table, Text
from trimtab.reporting.text import counted, duration, estimate_text, number, significant, size, value_text

_LAST_TENTH = {
    "loss": "loss", "reward, chosen": "rewards/chosen", "reward, rejected": "rewards/rejected",
    "reward gap": "rewards/margins", "reward accuracy": "rewards/accuracies", "active, chosen": "active/chosen",
    "active, rejected": "active/rejected", "backward skipped": "skipped_backward",
}  # fmt: skip


def training(training: TrainingNumbers | None, objective: ObjectiveNumbers) -> Section:
    """Curves of all seeds, their summary, and the numbers behind the curves."""
    if training is None:
        return Section("training", "Training", "Training", [Text("No training step is recorded in this run folder.")])
    blocks: list[Block] = [
        Text(f"Loss of one pair: {objective.formula}. Dead zone: {objective.dead_zone}.", "lead"),
        *([] if training.adapter is None else [Text(f"The adapter {training.adapter.sentence}.", "note")]),
        *([] if training.noise is None else [Text(_noise(training.noise), "note")]),
        Figures(_plots(training, on_scores=objective.on_scores)),
        _summary(training.seeds),
        *_epochs(training.seeds),
        *(_curve_table(entry) for entry in training.seeds),
    ]
    return Section("training", "Training", "Training", blocks)


def _noise(noise: NoiseNumbers) -> str:
    sentence = f"N{noise.sentence[1:]}."
    if noise.n_unsure:
        sentence += (
            f" Of {counted(noise.n_pairs, 'held-out pair')} {noise.n_unsure:,} end with a reward gap of less than two "
            "standard deviations of that: which side they count for is chance."
        )
    return sentence


def _plots(training: TrainingNumbers, *, on_scores: bool) -> list[Plot]:
    curves = [entry.curves for entry in training.seeds]
    columns = {name for table in curves for name in table}
    drawings = []
    if "loss" in columns:
        svg = plots.loss_plot(curves, step_zero=training.step_zero)
        drawings.append(Plot(svg, "Loss", "mean over the pairs of a step"))
    if {"rewards/chosen", "rewards/rejected"} <= columns:
        note = f"{'the score' if on_scores else 'β · log-ratio'}, by side, and the gap between them"
        drawings.append(Plot(plots.reward_plot(curves), "Rewards", note))
    if {"pull/chosen", "pull/rejected"} <= columns and not training.has_dead_zone:
        note = "gradient of a response against its own at the start, by side"
        drawings.append(Plot(plots.pull_plot(curves), "Pull", note))
    elif {"active/chosen", "active/rejected"} <= columns and not on_scores:
        note = "share with a gradient that is not exactly zero, by side"
        drawings.append(Plot(plots.active_plot(curves), "Active responses", note))
    return drawings


def _summary(entries: Sequence[SeedTrainingNumbers]) -> Table:
    rows: list[list[str]] = [
        ["regime", *(entry.regime.name or "not named" for entry in entries)],
        ["optimizer steps", *(number(entry.n_steps) for entry in entries)],
        ["epochs", *(significant(entry.epochs) for entry in entries)],
        ["loss, first step", *(significant(entry.first.get("loss")) for entry in entries)],
        *(
            [f"{label}, last tenth", *(significant(entry.last_tenth.get(name)) for entry in entries)]
            for label, name in _LAST_TENTH.items()
        ),
        ["time", *(duration(entry.seconds) for entry in entries)],
        ["tokens a second, median", *(significant(entry.tokens_per_second) for entry in entries)],
        ["peak memory", *(size(entry.peak_memory_bytes) for entry in entries)],
    ]
    return Table(["", *(f"seed {entry.seed}" for entry in entries)], rows, title="training in figures")


def _epochs(entries: Sequence[SeedTrainingNumbers]) -> list[Table]:
    """None where no row names its epoch."""
    rows = [
        [
            f"seed {entry.seed}, epoch {row.epoch}",
            number(row.n_steps),
            *(significant(row.sides[side]) for side in SIDES),
        ]
        for entry in entries
        for row in entry.sides_by_epoch
    ]
    return [Table(["", "steps", *SIDES], rows, title="active fraction and pull by epoch and side")] if rows else []


def _curve_table(entry: SeedTrainingNumbers) -> Table:
    names = [name for name in entry.curves if name != "step"]
    rows = [
        [f"{step:g}", *(significant(figure) for figure in figures)]
        for step, *figures in zip(entry.curves["step"], *(entry.curves[name] for name in names), strict=True)
    ]
    title = f"the curves of seed {entry.seed} (means over stretches of steps)"
    return Table(["step", *names], rows, title=title, detail=True)


# --- held-out pairs --------------------------------------------------------------------------------------------------


def heldout(heldout: HeldoutNumbers | None) -> Section | None:
    """Reward accuracy and calibration after training, each seed and pooled."""
    if heldout is None:
        return None
    if heldout.imitation is not None:
        return _imitation(heldout.imitation)
    before, after = heldout.before, heldout.after
    sides = [(f"Seed {seed}", side) for seed, side in heldout.by_seed.items()]
    if len(sides) > 1:
        sides.append(("Pooled", after))
    sides += heldout.by_source.items()
    is_unpaired = after.auc is not None
    noun = "rows" if is_unpaired else "pairs"
    rows = [
        ForestRow(name, (side.auc or side.accuracy).scaled(100), f"{number(side.accuracy.n)} {noun}", "truth")
        for name, side in sides
    ]
    started_even = before is not None and before.ranks_nothing
    lead = (
        "How well the model's own reward tells good from bad responses kept out of training: the chance, in "
        "percent, that a good one drawn at random has a higher reward than a bad one (AUC); 50 is chance. In the "
        "table, beside it, the share whose reward has its label's sign, for which 0 is the reference; all rewards "
        f"sinking together lowers that share and not the AUC. Intervals: {after.auc.method}; of shares: "
        f"{after.accuracy.method}."
        if after.auc is not None
        else "Share of preference pairs, kept out of training, whose chosen response the model's own reward puts "
        "above the rejected one, in percent, ties counted as half; 50 is chance."
        + (" Before training every reward gap is zero, so there was nothing to rank." if started_even else "")
        + f" Intervals: {after.accuracy.method}."
    )
    blocks: list[Block] = [
        Text(lead, "lead"),
        Forest(rows, "Held-out AUC" if is_unpaired else "Held-out reward accuracy", EVEN),
        _heldout_table(sides if before is None else [("before training", before), *sides]),
        *_reliability(None if started_even else before, after),
    ]
    title = "Held-out rows told apart" if is_unpaired else "Held-out reward accuracy"
    return Section("heldout", "Held-out", title, blocks)


def _imitation(numbers: ImitationNumbers) -> Section:
    lead = (
        "Mean negative log-likelihood of responses kept out of training, in nats a token: how well the model predicts "
        f"what it was to imitate. Interval of the change: {numbers.change.method}."
    )
    figures = [
        number(numbers.before, digits=3),
        number(numbers.after, digits=3),
        estimate_text(numbers.change, digits=3),
    ]
    table = Table(
        ["before", "after", "change", "n"], [[*figures, number(numbers.change.n)]], title="held-out responses"
    )
    return Section("heldout", "Held-out", "Held-out responses predicted", [Text(lead, "lead"), table])


def _heldout_table(sides: Sequence[tuple[str, HeldoutSide]]) -> Table:
    if any(side.auc for _, side in sides):
        columns = [(name, side.auc or side.accuracy, side.accuracy, side.reward_gap) for name, side in sides]
        text = [
            [name, *(estimate_text(of, digits=3) for of in estimates), number(estimates[1].n)]
            for name, *estimates in columns
        ]
        return Table(["", "AUC", "share right", "reward toward the label (nats)", "n"], text, title="held-out rows")
    rows = [
        [
            name,
            estimate_text(side.accuracy, digits=3),
            estimate_text(side.reward_gap, digits=3),
            number(side.accuracy.n),
        ]
        for name, side in sides
    ]
    return Table(["", "accuracy", "reward gap (nats)", "n"], rows, title="held-out pairs")


def _reliability(before: HeldoutSide | None, after: HeldoutSide) -> list[Block]:
    """The reliability diagram of the reward gap and its table."""
    now = after.calibration
    errors = f"expected calibration error {number(now.ece, digits=3)}, Brier score {number(now.brier, digits=3)}"
    rows = [
        [
            f"{number(gaps.low, digits=2)} to {number(gaps.high, digits=2)}",
            number(gaps.count),
            number(gaps.confidence, digits=3),
            number(gaps.accuracy, digits=3),
        ]
        for gaps in now.bins
    ]
    plot = Plot(
        plots.reliability_plot(() if before is None else before.calibration.bins, now.bins),
        "Does the reward gap mean what it says?",
        f"σ(|gap|) against how often its sign is right; {errors}, {number(now.n)} gaps of all seeds",
    )
    head = ["confidence", "gaps", "mean confidence", "share right"]
    return [Figures([plot]), Table(head, rows, title="reliability", detail=True)]


# --- milestones ------------------------------------------------------------------------------------------------------


def milestones(milestones: numbers.MilestoneNumbers | None) -> Section | None:
    """Quality against drift, the rule, and a table a seed."""
    entries = [] if milestones is None else [entry for entry in milestones.seeds if entry.selection.milestones]
    if milestones is None or not entries:
        return None
    several = len(milestones.seeds) > 1
    rule = entries[0].selection
    seeds = [(f"Seed {entry.seed}" if several else "", entry.selection) for entry in entries]
    lead = (
        f"Rule: {rule.rule}. Held-out rewards say how well the labels were learned, not how good the "
        f"answers are. Drift: {rule.drift_note}."
    )
    blocks: list[Block] = [
        *(
            Text(
                f"{seed + ': step' if seed else 'Step'} {number(selection.picked)} of {number(selection.last)}, "
                f"because {selection.why}."
            )
            for seed, selection in seeds
        ),
        Text(lead, "lead"),
        Figures(_milestone_plots([selection.milestones for _, selection in seeds], several=several)),
        *(_milestone_table(selection, title=seed or "Milestones") for seed, selection in seeds),
    ]
    return Section("milestones", "Milestones", "Milestones", blocks)


def _milestone_plots(seeds: Sequence[Sequence[MilestoneNumbers]], *, several: bool) -> list[Plot]:
    note = "ring: picked" if several else "ring: picked; numbers: steps; bars: 95 % over pairs"
    accuracy = milestone_plot(seeds, measure="accuracy", label="held-out reward accuracy, %", scale=100.0)
    loss = milestone_plot(seeds, measure="loss", label="held-out loss, nats")
    return [Plot(accuracy, "Accuracy against drift", note), Plot(loss, "Loss against drift", note)]


def _milestone_table(selection: Selection, *, title: str) -> Table:
    names = [name for name in MEASURES if name in _MEASURES and selection.milestones[0].measures[name] is not None]
    rows = [
        [
            f"{number(row.step)}{' (picked)' if row.picked else ''}",
            significant(row.epoch),
            *(_measure_text(row.measures, name) for name in names),
            *("" if row.against_picked is None else _measure_text(row.against_picked, name) for name in _DIFFERENCES),
            number(row.n),
        ]
        for row in selection.milestones
    ]
    head = [
        "step",
        "epoch",
        *(_MEASURES[name] for name in names),
        *(f"{name} less the picked one's" for name in _DIFFERENCES),
        "pairs",
    ]
    return Table(head, rows, title=title)


_MEASURES = {
    "accuracy": "accuracy", "loss": "loss", "log_loss": "log-loss", "drift": "drift",
    "log_ratio_chosen": "log-ratio, chosen", "log_ratio_rejected": "log-ratio, rejected",
}  # fmt: skip
_DIFFERENCES = ("accuracy", "loss")


def _measure_text(measures: Mapping[str, Measure | None], name: str) -> str:
    measure = measures[name]
    return value_text(None, None) if measure is None else value_text(measure.value, measure.ci95, digits=3)
