"""One file per engine that `worker.py` can run: a class `Engine(settings)` with plain methods."""
