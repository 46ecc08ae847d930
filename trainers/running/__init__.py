"""The parts of a run: arguments, data, models, adapters."""
