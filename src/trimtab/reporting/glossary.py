"""What the report's words mean, for a reader who meets them there first."""

from __future__ import annotations

GLOSSARY = (
    (
        "Win rate",
        "The share of prompts on which a judge prefers the aligned model's answer to the unaligned model's; a tie "
        "counts as half. 50 % is no change.",
    ),
    (
        "Published baseline",
        "Where a benchmark brings answers of its own, both models are judged against those. 50 % is then as good as "
        "that baseline, and what alignment changed is the difference of the two win rates, paired by prompt.",
    ),
    (
        "True win rate, oracle",
        "Only in the wind tunnel: its tasks have answers that can be checked, so the oracle is no opinion. It scores "
        "correctness, format and coherence, and does not see length.",
    ),
    (
        "Length-controlled (LC) win rate",
        "What the same judge would have said had both answers been equally long, estimated by the logistic model of "
        "AlpacaEval 2. It removes a judge's liking for length, and nothing else: a judge that doubts gives figures "
        "nearer to 50 % than the truth, with or without it.",
    ),
    (
        "Uncalibrated",
        "The constants of the length model were fitted to the leaderboard's judge and baseline. With another judge it "
        "still takes out what its own verdicts show of length, but the figure is comparable with no leaderboard.",
    ),
    (
        "Canary",
        "An answer of which it is known beforehand what a sound judge says: the baseline against itself comes out "
        "even, a constant, an empty or a merely instructing answer loses. Where one rings, the numbers say little.",
    ),
    (
        "Mark",
        "From 1 to 10, given to one answer alone (MT-Bench), each turn of a question apart. The unit is the question: "
        "its turns hang together, so intervals and differences are over questions.",
    ),
    (
        "95 % interval",
        "A range made so that in 95 of 100 repetitions with other prompts (and, where several seeds were run, other "
        "seeds) it holds the true value. One training run's interval says nothing about other seeds.",
    ),
    (
        "Not distinguishable",
        "The interval holds the value of no change. It does not say that nothing changed: only that this many prompts "
        "cannot tell.",
    ),
    (
        "Reward, reward gap",
        "β times the log-ratio of the model to its starting point, summed over a response, in nats; the gap is chosen "
        "minus rejected. It measures how far training moved, not how good an answer is.",
    ),
    (
        "Active response",
        "One whose gradient is not exactly zero. Hinge objectives let go of a response once its reward has passed the "
        "margin; the others never do.",
    ),
    (
        "Regime",
        "Linear: nearly every response stayed active, so objectives that start with the same gradient give nearly the "
        "same model. Selective: a good share was let go. Starved: almost nothing was active before half of the steps.",
    ),
    (
        "Held-out reward accuracy",
        "The share of pairs kept out of training on which the trained model's reward ranks chosen above rejected. 50 % "
        "is chance; high values say that the labels were learned, not that answers are better.",
    ),
    (
        "Length bias (AUC)",
        "The chance that a chosen response is longer than a rejected one. At 0.5 length tells nothing; far above it, "
        "training can win by writing more.",
    ),
)
