"""The metric `game` and its card."""
