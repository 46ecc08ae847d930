"""The training: `Trainer` subclasses, their arguments, collators and the entry point `run.py`."""
