"""The metric `counting_confusion_matrix` and its card."""
