"""The metric `off_by_one_accuracy` and its card."""
