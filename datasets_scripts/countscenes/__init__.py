"""`countscenes`: rendered scenes with counts, captions, points and boxes."""
