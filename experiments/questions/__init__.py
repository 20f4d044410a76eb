"""One file a question, in the order of the page."""

from __future__ import annotations

from experiments.question import Question
from experiments.questions import (
    calibration,
    dead_zone,
    margin_beta,
    noise,
    ranking,
    real_rates,
    real_settings,
    real_weights,
    regimes,
    saturation,
    selection,
    sizes,
)

QUESTIONS: tuple[Question, ...] = (
    saturation.QUESTION,
    dead_zone.QUESTION,
    margin_beta.QUESTION,
    ranking.QUESTION,
    noise.QUESTION,
    sizes.QUESTION,
    calibration.QUESTION,
    regimes.QUESTION,
    selection.QUESTION,
    real_weights.QUESTION,
    real_rates.QUESTION,
    real_settings.QUESTION,
)
