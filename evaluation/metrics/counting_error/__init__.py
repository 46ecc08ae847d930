"""The metric `counting_error` and its card."""
