"""The version, in the one place where it is written. Nothing is imported here, so that the packaging can read it."""

__version__ = "0.1.0"
