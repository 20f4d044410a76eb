"""What a run needs around its stages.

run_setup            `set_up(config)`: everything the configuration stands for, resolved once
folder               where each artefact lies, and which stage has made it
run_identity         what a trajectory, and the reference's log-probs, depend on
model_loading        the unaligned model, its adapter, a scorer that has checked itself
memory_fit, disk_use pack budget and checkpointing that fit into free memory; bytes on disk
training_inputs      pairs, tokenizer and weights that a trained run stands on
training_state       what a run trains with, and its checkpoint
benchmark_prompts    prompts and official texts by the benchmark's name
answering            answers of a model, decoded here or by a server; transcript: as they grow
judges/              the judges that a configuration names
resuming, signals    which checkpoint a run goes on from; how it stops
listeners, trackers  callbacks of a run in progress, and those that a configuration names
capability           tasks of lm-eval, a value a sample; capability_files: what lm-eval wrote by itself
hub_card             the model card as the Hub reads it
milestones           the weights that a run may end with; heldout_progress: a look at held-out pairs that takes long
notices, symptom_watch, screening_summary, model_card    what is said before, while and after it trains
"""

from trimtab.runtime.run_setup import RunSetup, set_up

__all__ = ["RunSetup", "set_up"]
