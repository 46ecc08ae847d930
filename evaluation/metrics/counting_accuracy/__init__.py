"""The metric `counting_accuracy` and its card."""
