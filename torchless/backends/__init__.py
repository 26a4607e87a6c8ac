"""Executors of plans, one folder each. `base` is the contract; a new folder is a new backend."""
