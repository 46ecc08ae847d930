"""Releases: folders, cards, pushes."""
