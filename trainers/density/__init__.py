"""Training of density models."""
