"""Inference over many images: counts, CLIP embeddings, baselines."""
