"""Benchmark protocols."""
