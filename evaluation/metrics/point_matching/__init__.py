"""The metric `point_matching` and its card."""
