"""trimtab: align small language models with preference pairs, and say honestly whether it helped."""

__version__ = "0.1.0"
