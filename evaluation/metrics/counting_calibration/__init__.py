"""The metric `counting_calibration` and its card."""
