"""From numbers to sentences. Every sentence names its n, its interval and its judge, and says when it cannot tell.

summary    the first screen, in 250 words at most
report     the answer to "did it help?", what qualifies it, what was not measured
judges     win rates, missing verdicts, canaries, marks
lengths    what became of the length of answers, and what cut ones hide
training   regime, symptoms, milestones, held-out pairs
"""
