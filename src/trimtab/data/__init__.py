"""Preference data: from a source to pairs (`sources`, `formats`), to tokens (`chat`), and the account of it (`audit`).

Importing this room loads neither torch nor transformers nor datasets.
"""
