"""From numbers to sentences. Every sentence names its n, its interval and its judge, and says when it cannot tell.

headline        the answer to "did it help?" and what qualifies it
judges          win rates, missing verdicts, canaries, marks
training        regime, symptoms, milestones, held-out pairs
not_measured    what a reader would look for and will not find
"""
