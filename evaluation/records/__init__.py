"""Records of runs: what was measured, cached embeddings, summaries, the `model-index`."""
