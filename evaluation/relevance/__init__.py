"""Which patches and which tokens made the score of a CLIP."""
