"""What `trimtab sweep` is made of: the grid, the ledger, the worker, the result and its page."""
