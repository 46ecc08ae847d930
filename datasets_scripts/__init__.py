"""The data: caption tools, the scene renderer, and builders that read the sources' own layouts."""
