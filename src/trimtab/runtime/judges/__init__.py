"""The parts of judging.

judge_setup         the judge that a configuration names, made ready to be asked
cached_endpoint     a judge's endpoint over the verdict cache of all runs
reward_model        a local reward model as a judge
windtunnel_judges   the embedded world's: the oracle, and judges with and without a length bias
pairwise            one judge of the user's choice compares answers with the baseline's
grading             one judge marks answers of several turns, as MT-Bench does
judge_record        who judged, and what it took, as it is written beside the verdicts
position            whether the judge follows the place in which an answer is shown
"""
