"""The parts of judging.

embedded    the wind tunnel's judges: the oracle, and judges with and without a length bias
comparing   one judge of the user's choice compares answers with the baseline's
marking     one judge marks answers of several turns, as MT-Bench does
judge_setup       the judges that a configuration names, made ready to be asked
"""
