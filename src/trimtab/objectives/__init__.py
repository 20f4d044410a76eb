"""Every loss as a value over log-ratios. Importing this costs no torch.

    log_ratios       what an objective sees
    objective        what every objective answers; how parameters are checked
    pairwise         dpo, dpo_hinge, margin_sigmoid, exo_pair, ipo, robust, discopop, sigmoid_norm, dpop, odpo, wpo
    pointwise        apo_zero, apo_down, apo_hinge_zero, apo_hinge_softplus, nca_pair, bco_pair, sppo_hard
    batchwise        aot, aot_unpaired, sft
    reference_free   simpo, repo, orpo
    unpaired         kto, apo_zero_unpaired, apo_hinge_zero_unpaired, which read single responses with a label
    on_scores        bradley_terry, which trains a reward model
    mixture          weighted sums of several
    modified         length_normalize, ld_alpha, sft_weight
    registry         names, make, table
    pull             coefficients by autograd, and against those at the reference

To add one here: one class, its name in `registry`, one test of arithmetic done by hand, one row in docs/objectives.md.
"""

from trimtab.objectives.batchwise import Aot, AotUnpaired, Sft
from trimtab.objectives.log_ratios import LogRatios
from trimtab.objectives.mixture import Mixture
from trimtab.objectives.modified import Modified
from trimtab.objectives.objective import Objective
from trimtab.objectives.on_scores import BradleyTerry
from trimtab.objectives.pairwise import (
    Discopop,
    Dpo,
    DpoHinge,
    Dpop,
    ExoPair,
    Ipo,
    MarginSigmoid,
    Odpo,
    Robust,
    SigmoidNorm,
    Wpo,
)
from trimtab.objectives.pointwise import ApoDown, ApoHingeSoftplus, ApoHingeZero, ApoZero, BcoPair, NcaPair, SppoHard
from trimtab.objectives.reference_free import Orpo, Repo, Simpo
from trimtab.objectives.registry import MODIFIERS, NAMES, PARAMETERS, Row, defaults, is_registered, make, table
from trimtab.objectives.unpaired import ApoHingeZeroUnpaired, ApoZeroUnpaired, Kto

__all__ = [
    "MODIFIERS",
    "NAMES",
    "PARAMETERS",
    "Aot",
    "AotUnpaired",
    "ApoDown",
    "ApoHingeSoftplus",
    "ApoHingeZero",
    "ApoHingeZeroUnpaired",
    "ApoZero",
    "ApoZeroUnpaired",
    "BcoPair",
    "BradleyTerry",
    "Discopop",
    "Dpo",
    "DpoHinge",
    "Dpop",
    "ExoPair",
    "Ipo",
    "Kto",
    "LogRatios",
    "MarginSigmoid",
    "Mixture",
    "Modified",
    "NcaPair",
    "Objective",
    "Odpo",
    "Orpo",
    "Repo",
    "Robust",
    "Row",
    "Sft",
    "SigmoidNorm",
    "Simpo",
    "SppoHard",
    "Wpo",
    "defaults",
    "is_registered",
    "make",
    "table",
]
