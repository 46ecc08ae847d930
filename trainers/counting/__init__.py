"""Training of [`CLIPForCounting`]."""
