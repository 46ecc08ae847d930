"""The metric `mean_deviation` and its card."""
