"""The metric `counting_comparison` and its card."""
