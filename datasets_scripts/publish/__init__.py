"""Folders for the Hub: parquet shards and cards."""
