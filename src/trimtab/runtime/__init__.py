"""What a run needs around its stages: folder, set-up, signals, resuming, milestones, answers."""
