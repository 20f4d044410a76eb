"""SmolLM2-135M-Instruct on real pairs: commands that make what is missing, one JSON a run, for docs/findings.md.

    runs        the paper's methods: numbers in runs/, answers in answers/
    rates       learning rates, LoRA and full: rates/
    settings    β, batch, epochs and schedule, one at a time: settings/
    rewards     what a reward model says of the answers: rewards/, reward.json
    bundle      all of it in one file to hand on

Each says with `--help` what it needs; `python -m experiments --real` then writes the page anew.
"""
