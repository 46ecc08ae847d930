"""`datasets` builders that read published counting sets in their own layouts."""
