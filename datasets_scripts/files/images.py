"""Suffixes and formats of image files, and the errors of their decoders."""

from PIL import Image


IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
# Pillow's decoders for images from the web, with the suffixes of their files; some of the others start programs.
SAFE_FORMATS = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
# Pillow raises all of these for files that are cut short or malicious.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, EOFError, MemoryError),
    Image.DecompressionBombError,
)
