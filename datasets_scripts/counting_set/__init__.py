"""The counting set of 2302.12066, built from captions and their images."""
