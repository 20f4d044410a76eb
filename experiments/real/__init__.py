"""The paper's methods on a real instruct model: the runs, one JSON each, and what they say."""
