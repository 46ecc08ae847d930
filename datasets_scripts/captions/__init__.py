"""Numbers, nouns and plurals in captions."""
