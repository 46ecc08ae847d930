"""What is kept of a run: its record, a cache of measured values, summaries, the `model-index`."""
