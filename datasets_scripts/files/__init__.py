"""Image files, archives, checks of annotations, and writing that is whole or not at all."""
