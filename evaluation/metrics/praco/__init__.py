"""The metric `praco` and its card."""
