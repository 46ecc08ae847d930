"""The page that `count-clip report` writes."""
