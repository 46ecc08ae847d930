"""An HTTP client for images on the web: polite, bounded and safe."""
