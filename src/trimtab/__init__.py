"""trimtab: align small language models with preference pairs on the machine you have, and say honestly whether it helped."""

__version__ = "0.1.0"
