"""Reading pictures, as all of the package does it: the models' own rules, under the name of this room."""

from count_clip.modeling.pictures import PictureError, open_picture, to_rgb


__all__ = ["PictureError", "open_picture", "to_rgb"]
