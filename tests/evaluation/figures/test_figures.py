import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from count_clip.evaluation.figures import figures
from count_clip.evaluation.figures import style as drawing
from count_clip.evaluation.figures.figures import contact_sheet, draw_confusion_matrix, draw_density
from count_clip.modeling.images import to_rgb


def _spot(height, width, x, y, sigma=6.0, count=1.0):
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return count * spot / spot.sum()


def _brightness(figure, x, y):
    return np.asarray(figure.convert("L"), dtype=float)[y - 2 : y + 3, x - 2 : x + 3].mean()


def test_heat_is_where_the_density_is_and_nowhere_else():
    figure = draw_density(Image.new("RGB", (640, 480), (120, 120, 120)), _spot(480, 640, 300, 200), color_bar=False)
    assert figure.size == (640, 480)
    assert _brightness(figure, 300, 200) > 180  # the bright end
    away = np.asarray(figure)[300:, 400:]
    assert np.ptp(away.reshape(-1, 3), axis=0).max() <= 2  # the photograph alone
    assert away.mean() < 120  # and darker than it was


def test_brighter_means_more():
    density = (
        _spot(400, 800, 200, 250, count=1) + _spot(400, 800, 400, 250, count=4) + _spot(400, 800, 600, 250, count=9)
    )
    figure = draw_density(Image.new("RGB", (800, 400)), density, color_bar=False)
    few, some, many = (_brightness(figure, x, 250) for x in (200, 400, 600))
    assert few < some < many


def test_grey_of_the_colours_rises_evenly():
    grey = drawing.heat_colours() @ [0.299, 0.587, 0.114]
    steps = np.diff(grey)
    assert steps.min() > 0
    assert steps.max() < 2.0 * steps.mean()


def test_an_empty_map_leaves_the_photograph_without_heat():
    image = Image.new("RGB", (400, 300), (130, 130, 130))
    empty = np.asarray(draw_density(image, np.zeros((300, 400)), color_bar=False))[100:]
    assert np.ptp(empty.reshape(-1, 3), axis=0).max() == 0
    noise = np.random.default_rng(0).random((300, 400))
    faint = np.asarray(draw_density(image, noise / noise.sum() * 0.02, color_bar=False)).astype(int)[100:]
    assert np.abs(faint - empty).max() < 60
    full = np.asarray(draw_density(image, noise / noise.sum() * 20, color_bar=False)).astype(int)[100:]
    assert np.abs(full - empty).max() > 120


def test_softening_keeps_the_sum_even_at_the_border():
    density = np.zeros((60, 90), np.float32)
    density[0, 0], density[59, 40], density[30, 30] = 1, 2, 3
    softened = figures._soften(density, 4)
    assert softened.sum() == pytest.approx(6, rel=1e-5)
    assert softened.min() >= 0
    assert softened[30, 30] < 1
    np.testing.assert_array_equal(figures._soften(density, 0), density)


def test_points_are_drawn_at_their_places():
    image = Image.new("RGB", (600, 400))
    figure = draw_density(image, np.zeros((400, 600)), [[250.5, 200.5], [100.5, 300.5]], color_bar=False)
    assert min(figure.getpixel((250, 200))) >= 250
    assert min(figure.getpixel((100, 300))) >= 250
    assert figure.getpixel((200, 200)) == (0, 0, 0)


def _label_of(monkeypatch, *args, **kwargs):
    labels = []
    monkeypatch.setattr(figures, "_draw_label", lambda canvas, label, box, size: labels.append(label))
    draw_density(*args, **kwargs)
    return labels[0]


def test_the_label_has_prompt_and_count(monkeypatch):
    image, density = Image.new("RGB", (640, 480)), _spot(480, 640, 300, 200, count=12.3)
    assert _label_of(monkeypatch, image, density, text="red apples") == "red apples: 12.3"
    assert _label_of(monkeypatch, image, density, text="red apples", count=7) == "red apples: 7.0"
    assert _label_of(monkeypatch, image, density, count=1234.5) == "1,234"
    long = _label_of(monkeypatch, image, density, text="apples " * 50)
    assert long.endswith("...: 12.3")


def test_the_label_is_where_it_hides_nothing():
    image = Image.new("RGB", (640, 480), (200, 200, 200))
    plain = np.asarray(draw_density(image, np.zeros((480, 640)), text="cats", color_bar=False))
    assert plain[10:40, 10:60].mean() < 60  # the plate, upper left
    moved = np.asarray(draw_density(image, _spot(480, 640, 40, 25, 12), text="cats", color_bar=False))
    assert moved[10:40, 580:630].mean() < 60  # upper right instead


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (64, 64), (224, 224), (333, 517)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16", "F", "1", "P", "CMYK"])
def test_any_size_and_mode_can_be_drawn(size, mode):
    image = Image.new(mode, size)
    density = np.ones(size[::-1]) / (size[0] * size[1])
    figure = draw_density(image, density, [[0, 0]], "cats", 1.0)
    assert figure.mode == "RGB"
    assert min(figure.size) >= 60
    if min(size) >= 320:
        assert figure.size == size


def test_a_rotated_photograph_is_drawn_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.new("RGB", (640, 400), (120, 120, 120)).save(tmp_path / "phone.jpg", exif=exif)
    density = _spot(640, 400, 100, 500)
    for image in (Image.open(tmp_path / "phone.jpg"), tmp_path / "phone.jpg"):
        figure = draw_density(image, density, [[100.5, 500.5]], color_bar=False)
        assert figure.size == (400, 640)
        assert min(figure.getpixel((100, 500))) >= 250


def test_a_deep_image_is_drawn_as_the_model_sees_it():
    deep = np.full((400, 640), 1000, np.uint16)
    deep[0, 0] = 4095
    figure = draw_density(Image.fromarray(deep), np.zeros((400, 640)), color_bar=False)
    seen = np.asarray(to_rgb(deep))[300, 300, 0]
    same = draw_density(Image.fromarray(np.asarray(to_rgb(deep))), np.zeros((400, 640)), color_bar=False)
    assert seen == round(1000 / 4095 * 255)
    assert figure.getpixel((300, 300)) == same.getpixel((300, 300))


def test_a_dark_image_is_hardly_darkened():
    kept = {}
    for grey in (10, 60, 200):
        figure = draw_density(Image.new("L", (640, 480), grey), np.zeros((480, 640)), color_bar=False)
        kept[grey] = _brightness(figure, 500, 400) / grey
    assert kept[10] > 0.9
    assert kept[10] > kept[60] > kept[200] == pytest.approx(0.62, abs=0.02)


def _titles_of(monkeypatch, *args, **kwargs):
    drawn = []
    title = figures._bar_title
    monkeypatch.setattr(figures, "_draw_bar", lambda canvas, top, clipped, square, *rest: drawn.append((top, square)))
    draw_density(*args, **kwargs)
    return title(drawn[0][1]), drawn[0][0] * drawn[0][1] ** 2


@pytest.mark.parametrize(
    ("size", "title", "value"),
    [
        ((640, 480), "objects per 100 x 100 px", 0.003),
        ((40, 30), "objects per 10 x 10 px", 0.003),
        ((2000, 1), "objects per pixel", 0.003),
        ((1, 1), "objects per pixel", 2.3),
    ],
)
def test_the_scale_counts_in_squares_that_fit_in_the_image(monkeypatch, size, title, value):
    density = np.full(size[::-1], value)
    found, top = _titles_of(monkeypatch, Image.new("RGB", size), density)
    assert found == title
    side = 1 if title.endswith("pixel") else int(title.split()[2])
    assert top == pytest.approx(value * side**2, rel=1e-3)


def test_the_scale_of_a_huge_sparse_image_has_a_readable_number(monkeypatch):
    density = np.full((1500, 2000), 1 / 3_000_000)
    found, top = _titles_of(monkeypatch, Image.new("L", (2000, 1500)), density)
    assert found == "objects per 1000 x 1000 px"
    assert top == pytest.approx(1 / 3, rel=1e-3)


@pytest.mark.parametrize("size", [(2000, 1), (900, 20), (1, 900), (60, 700)])
def test_nothing_hides_a_thin_image(size, monkeypatch):
    boxes = []
    monkeypatch.setattr(figures, "_draw_label", lambda canvas, label, box, type_size: boxes.append(box))
    monkeypatch.setattr(figures, "_draw_bar", lambda canvas, top, clipped, square, box, *rest: boxes.append(box))
    figure = draw_density(Image.new("RGB", size, (255, 255, 255)), np.full(size[::-1], 1e-3), text="cars")
    pixels = np.asarray(figure)
    rows = np.nonzero((pixels != figures._SHEET).any(axis=(1, 2)))[0]
    assert len(rows) == size[1]
    for _, top, _, bottom in boxes:
        assert bottom <= rows[0] or top > rows[-1]


def test_a_prompt_of_several_lines_is_written_in_one(monkeypatch):
    label = _label_of(monkeypatch, Image.new("RGB", (640, 480)), np.zeros((480, 640)), text="red\n  apples\t")
    assert label == "red apples: 0.0"


def test_a_huge_image_is_drawn_smaller():
    figure = draw_density(Image.new("L", (6000, 2500)), np.full((2500, 6000), 1e-6, np.float32), text="sand")
    assert figure.size == (4096, 1707)
    figure = draw_density(Image.new("L", (500, 400)), np.zeros((400, 500)), max_side=400)
    assert figure.size == (400, 320)


def test_tensors_are_accepted_and_the_scale_can_be_fixed():
    image = Image.new("RGB", (400, 300))
    density = torch.from_numpy(_spot(300, 400, 200, 150)).requires_grad_()
    assert draw_density(image, density).size == (400, 300)
    dim = draw_density(image, density, max_density=float(density.detach().max()) * 20, color_bar=False)
    bright = draw_density(image, density, color_bar=False)
    assert _brightness(dim, 200, 150) < _brightness(bright, 200, 150) / 2


@pytest.mark.parametrize(
    ("density", "options", "words"),
    [
        (np.zeros((30, 40)), {}, "height 40 and width 30, but got 30 and 40"),
        (np.zeros((40, 30, 1)), {}, r"shape \(40, 30, 1\)"),
        (np.full((40, 30), np.nan), {}, "NaN"),
        (np.full((40, 30), -1e-3), {}, "down to -0.001.*clip"),
        (np.zeros((40, 30)), {"points": [[1, 2, 3]]}, r"shape \(1, 3\)"),
        (np.zeros((40, 30)), {"points": [[1, np.nan]]}, "finite"),
        (np.zeros((40, 30)), {"max_density": 0}, "above zero"),
        (np.zeros((40, 30)), {"opacity": 2}, "between 0 and 1"),
    ],
)
def test_bad_input_is_rejected(density, options, words):
    with pytest.raises(ValueError, match=words):
        draw_density(Image.new("RGB", (30, 40)), density, **options)


def test_numbers_have_about_three_digits():
    written = [figures._number(value) for value in (0, 0.00321, 0.5, 3.14159, 12.0, 134.4, 12345.6)]
    assert written == ["0", "0.00321", "0.5", "3.14", "12", "134", "12,346"]


def test_confusion_matrix_is_coloured_by_share_of_the_row():
    matrix = np.diag([3, 40, 1])
    matrix[0, 2] = 9
    figure = draw_confusion_matrix(matrix, ["two", "three", "four"], title="Count$Bench_")
    assert figure.mode == "RGB"
    pixels = np.asarray(figure).reshape(-1, 3)

    def num_pixels(share):
        return (np.abs(pixels - np.array(colormaps["Blues"](share)[:3]) * 255) < 3).all(axis=1).sum()

    # Of two rows all in one cell, of one 3/4 and 1/4.
    assert num_pixels(1.0) == pytest.approx(2 * num_pixels(0.75), rel=0.1)
    assert num_pixels(0.75) == pytest.approx(num_pixels(0.25), rel=0.1)


@pytest.mark.parametrize(
    ("matrix", "labels", "words"),
    [
        (np.zeros((2, 3)), [1, 2], r"got \(2, 3\)"),
        (np.zeros((2, 2)), [1, 2, 3], "each of 3 labels"),
        (np.zeros((0, 0)), [], "each of 0"),
        (-np.ones((1, 1)), [1], "below zero"),
        (np.full((1, 1), np.nan), [1], "finite"),
    ],
)
def test_confusion_matrix_rejects_invalid_arguments(matrix, labels, words):
    with pytest.raises(ValueError, match=words):
        draw_confusion_matrix(matrix, labels)


def test_contact_sheet_has_each_image_whole():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [
        Image.new("RGB", size, colour) for size, colour in zip([(50, 50), (100, 20), (7, 70)], colours, strict=True)
    ]
    sheet = contact_sheet(images, ["one", "two words", "a very long caption " * 9], columns=2, cell=100)
    assert sheet.width == 5 + 2 * 105
    for x, y, colour in [(55, 55, 0), (160, 55, 1)]:
        assert sheet.getpixel((x, y)) == colours[colour]
    assert sheet.getpixel((160, 15)) == (250, 250, 248)  # paper above the flat one
    assert sheet.getpixel((55, sheet.height // 2 + 55)) == colours[2]
    assert contact_sheet(images[:1], columns=6, cell=100).size == (110, 110)


@pytest.mark.parametrize(
    ("count", "captions", "options", "words"),
    [(0, None, {}, "at least one"), (2, ["a"], {}, "1 for 2"), (1, None, {"columns": 0}, "above zero")],
)
def test_contact_sheet_rejects_invalid_arguments(count, captions, options, words):
    with pytest.raises(ValueError, match=words):
        contact_sheet([Image.new("L", (4, 4))] * count, captions, **options)


def test_long_captions_break_into_lines_that_fit():
    font = drawing.font_of(12)
    lines = drawing.wrap("seven small brown dogs beside a very long wooden bench in the park", font, 100, 3)
    assert len(lines) == 3
    assert all(drawing.text_size(font, line)[0] <= 100 for line in lines)
    assert lines[0].startswith("seven small")
    assert lines[2].endswith("...")
    assert drawing.wrap("", font, 100, 2) == [""]
    assert drawing.shorten("x" * 100, font, 40).endswith("x...")
