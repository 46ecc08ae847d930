import pytest

from count_clip.datasets_scripts.captions.plurals import plural_of


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("car", "cars"),
        ("bus", "buses"),
        ("bench", "benches"),
        ("toothbrush", "toothbrushes"),
        ("box", "boxes"),
        ("wine glass", "wine glasses"),
        ("hair drier", "hair driers"),
        ("berry", "berries"),
        ("key", "keys"),
        ("knife", "knives"),
        ("giraffe", "giraffes"),
        ("person", "people"),
        ("Person", "People"),
        ("tv", "TVs"),
        ("mouse", "mice"),
        ("sheep", "sheep"),
        ("skis", "skis"),
        ("scissors", "scissors"),
        ("broccoli", "broccoli"),
        ("fireman", "firemen"),
        ("ottoman", "ottomans"),
        ("lens", "lenses"),
        ("traffic_light", "traffic lights"),
        ("  sea  urchin ", "sea urchins"),
        ("merry-go-round", "merry-go-rounds"),
        ("slice of bread", "slices of bread"),
        ("wine glass of Anna", "wine glasses of Anna"),
        ("lily-of-the-valley", "lily-of-the-valleys"),
        # A plural already.
        ("heads of cabbage", "heads of cabbage"),
        ("red blood cells", "red blood cells"),
    ],
)
def test_plurals(name: str, plural: str) -> None:
    assert plural_of(name) == plural


@pytest.mark.parametrize("name", ["", "  ", "_"])
def test_nothing_has_no_plural(name: str) -> None:
    with pytest.raises(ValueError, match="name of a category"):
        plural_of(name)
