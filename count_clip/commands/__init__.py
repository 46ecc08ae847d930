"""The commands of `count-clip`, one file for each."""
