"""The metrics as folders that `evaluate.load` takes, one for each."""
