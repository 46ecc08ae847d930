import math

import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.trainers.density.augmentation import DensityAugmentation, random_affine
from count_clip.trainers.density.dataset import DensityTrainingDataset, density_target


SIDE = 48
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
ONLY = {
    "nothing": {},
    "noise": {"noise_probability": 1.0},
    "color": {"color_probability": 1.0},
    "blur": {"blur_probability": 1.0},
    "affine": {"affine_probability": 1.0},
    "horizontal flip": {"horizontal_flip_probability": 1.0},
    "vertical flip": {"vertical_flip_probability": 1.0},
    "quarter turn": {"quarter_turn_probability": 1.0},
    "everything that moves": {
        "affine_probability": 1.0,
        "horizontal_flip_probability": 1.0,
        "vertical_flip_probability": 1.0,
        "quarter_turn_probability": 1.0,
    },
}


def _only(**probabilities: float) -> DensityAugmentation:
    off = {name: 0.0 for name in vars(DensityAugmentation()) if name.endswith("_probability")}
    return DensityAugmentation(**{**off, **probabilities})


def _marked_image(width: int, height: int) -> tuple[Image.Image, list[list[float]]]:
    """A black image with a disc of each primary colour, and the middles of the discs."""
    points = [[0.41 * width, 0.45 * height], [0.55 * width, 0.52 * height], [0.48 * width, 0.6 * height]]
    ys, xs = np.mgrid[:height, :width] + 0.5
    pixels = np.zeros((height, width, 3), np.uint8)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        pixels[(xs - x) ** 2 + (ys - y) ** 2 <= (min(width, height) / 20) ** 2] = colour
    return Image.fromarray(pixels), points


def _discs(window: Image.Image) -> list[tuple[float, float] | None]:
    """Where the discs are in a window, by their pixels alone; None where one touches the border or is not there."""
    found: list[tuple[float, float] | None] = []
    pixels = np.asarray(window, dtype=np.float64)
    for channel in range(3):
        weights = np.clip(pixels[..., channel] - pixels.sum(axis=2) / 2, 0, None)
        border = np.concatenate([weights[0], weights[-1], weights[:, 0], weights[:, -1]])
        if border.max() > 0 or weights.sum() < 500:
            found.append(None)
            continue
        ys, xs = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
        found.append((float((xs * weights).sum() / weights.sum()), float((ys * weights).sum() / weights.sum())))
    return found


@pytest.mark.parametrize("name", [name for name in ONLY if name not in ("noise", "color")])
@pytest.mark.parametrize("size", [(150, 120), (96, 160), (60, 48), (301, 203)])
def test_points_stay_on_their_objects(density_processor, name, size):
    image, points = _marked_image(*size)
    rows = [{"image": image, "points": points, "text": "discs"}]
    dataset = DensityTrainingDataset(
        rows, density_processor, _only(**ONLY[name]), resize=60, scale_jitter=(0.8, 1.5), seed=3
    )
    seen = 0
    for epoch in range(12):
        dataset.set_epoch(epoch)
        window, moved = dataset.window(image, points, 0)
        assert window.size == (SIDE, SIDE)
        for disc, point in zip(_discs(window), moved, strict=True):
            if disc is not None:
                seen += 1
                np.testing.assert_allclose(point, disc, atol=0.4)
    assert seen >= 12


@pytest.mark.parametrize("name", ONLY)
def test_labels_sum_to_the_points_in_the_window(density_processor, name):
    image, _ = _marked_image(100, 80)
    points = np.random.default_rng(0).uniform((0, 0), (100, 80), (200, 2)).tolist()
    rows = [{"image": image, "points": points, "text": "discs", "image_id": "a"}]
    dataset = DensityTrainingDataset(rows, density_processor, _only(**ONLY[name]), resize=64, seed=1)
    for epoch in range(4):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        _, moved = dataset.window(image, points, 0)
        inside = ((moved >= 0) & (moved < SIDE)).all(axis=1).sum()
        assert 0 < inside < 200
        assert sample["labels"].shape == (SIDE, SIDE)
        assert sample["labels"].sum().item() == pytest.approx(inside, rel=1e-5)
        assert sample["pixel_values"].shape == (3, SIDE, SIDE)
        assert sample["text"] == "discs"


def test_noise_and_colours_change_pixels_and_move_nothing(density_processor, make_image):
    image, points = make_image(60, 70), [[3.0, 4.0], [40.0, 50.0]]
    plain = DensityTrainingDataset([], density_processor, DensityAugmentation.none(), seed=5)
    window, moved = plain.window(image, points, 0)
    for name in ("noise", "color", "blur"):
        changed = DensityTrainingDataset([], density_processor, _only(**ONLY[name]), seed=5)
        changed_window, changed_moved = changed.window(image, points, 0)
        np.testing.assert_array_equal(changed_moved, moved)
        assert not np.array_equal(np.asarray(changed_window), np.asarray(window))


def test_flips_mirror_pixels_exactly(density_processor, make_image):
    image, points = make_image(SIDE, SIDE), [[10.25, 30.5]]
    for name, mirrored, expected in (
        ("horizontal_flip_probability", np.s_[:, ::-1], [[SIDE - 10.25, 30.5]]),
        ("vertical_flip_probability", np.s_[::-1, :], [[10.25, SIDE - 30.5]]),
    ):
        window, moved = DensityTrainingDataset([], density_processor, _only(**{name: 1.0})).window(image, points, 0)
        np.testing.assert_array_equal(np.asarray(window), np.asarray(image)[mirrored])
        np.testing.assert_allclose(moved, expected)


def test_quarter_turns_are_exact_and_all_occur(density_processor, make_image):
    image, point = make_image(SIDE, SIDE), (10.25, 30.5)
    turned_points = {1: (30.5, SIDE - 10.25), 2: (SIDE - 10.25, SIDE - 30.5), 3: (SIDE - 30.5, 10.25)}
    turned_pixels = {turns: np.rot90(np.asarray(image), turns) for turns in turned_points}
    dataset = DensityTrainingDataset([], density_processor, _only(quarter_turn_probability=1.0))
    seen = set()
    for index in range(20):
        window, moved = dataset.window(image, [point], index)
        turns = [turns for turns, pixels in turned_pixels.items() if np.array_equal(np.asarray(window), pixels)]
        assert len(turns) == 1
        np.testing.assert_allclose(moved, [turned_points[turns[0]]])
        seen.update(turns)
    assert seen == {1, 2, 3}


def test_point_on_the_far_border_is_not_lost(density_processor, make_image):
    row = {"image": make_image(SIDE, SIDE), "points": [[float(SIDE), float(SIDE)], [SIDE + 1.0, 3.0]], "text": "dots"}
    labels = DensityTrainingDataset([row], density_processor, DensityAugmentation.none())[0]["labels"]
    assert labels.sum().item() == pytest.approx(1.0)
    assert labels[-1, -1] == labels.max()


@pytest.fixture
def prompted_rows(make_image):
    """Two images; of the first there are three rows, of the second one."""
    first, second = make_image(60, 60, 1), make_image(60, 60, 2)
    return [
        {"image": first, "image_id": "a", "text": "dots", "points": [[30.0, 30.0], [20.0, 25.0]]},
        {"image": second, "image_id": "b", "text": "dots", "points": []},
        {"image": first, "image_id": "a", "text": "stars", "points": []},
        {"image": first, "image_id": "a", "text": "rings", "points": [[31.0, 20.0]]},
    ]


def test_prompts_of_a_image_share_its_window(density_processor, prompted_rows):
    options = {"augmentation": _only(affine_probability=1.0, noise_probability=1.0), "resize": 60, "seed": 2}
    dataset = DensityTrainingDataset(prompted_rows, density_processor, prompts_per_image=3, **options)
    assert len(dataset) == 2
    orders = set()
    for epoch in range(8):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert sorted(sample["text"]) == ["dots", "rings", "stars"]
        assert sample["pixel_values"].shape == (3, SIDE, SIDE)
        for text, label in zip(sample["text"], sample["labels"], strict=True):
            points = next(row["points"] for row in prompted_rows if row["text"] == text and row["image_id"] == "a")
            window, moved = dataset.window(prompted_rows[0]["image"], points, 0)
            np.testing.assert_allclose(label, density_target(moved, (SIDE, SIDE)), atol=1e-7)
        expected = density_processor(images=[window], text=["dots"])["pixel_values"][0]
        torch.testing.assert_close(sample["pixel_values"], expected)
        orders.add(tuple(sample["text"]))
    assert len(orders) > 1


def test_image_with_too_few_prompts_repeats_them_and_with_too_many_draws_some(density_processor, prompted_rows):
    two = DensityTrainingDataset(prompted_rows, density_processor, resize=60, prompts_per_image=2)
    drawn = set()
    for epoch in range(12):
        two.set_epoch(epoch)
        texts = two[0]["text"]
        assert len(set(texts)) == 2
        drawn.update(texts)
        assert two[1]["text"] == ["dots", "dots"]
        assert two[1]["labels"].shape == (2, SIDE, SIDE)
    assert drawn == {"dots", "stars", "rings"}


def test_prompts_without_an_image_id_cannot_be_put_together(density_processor, prompted_rows):
    del prompted_rows[2]["image_id"]
    with pytest.raises(ValueError, match="`prompts_per_image` groups .*`image_id`, but row 2 has none"):
        DensityTrainingDataset(prompted_rows, density_processor, prompts_per_image=2)


def test_window_without_augmentation_is_what_the_processor_sees(density_processor, make_image):
    image = make_image(SIDE, SIDE)
    row = {"image": image, "points": [], "text": "nothing"}
    sample = DensityTrainingDataset([row], density_processor, DensityAugmentation.none())[0]
    expected = density_processor(images=[image], text=["nothing"])["pixel_values"][0]
    torch.testing.assert_close(sample["pixel_values"], expected)
    assert sample["labels"].sum() == 0


def test_affine_map_is_rotation_shear_scale_and_shift_about_the_middle():
    class Fixed:
        """Draws what the test wants, in the order of angle, shear, factor, shift."""

        def __init__(self):
            self.draws = iter([30.0, 10.0, 0.9, np.array([0.1, -0.05])])

        def uniform(self, *bounds, size=None):
            return next(self.draws)

    matrix = random_affine(Fixed(), 100, DensityAugmentation())
    for x, y in ((50.0, 50.0), (80.0, 20.0), (0.0, 100.0)):
        # Worked out step by step, each on plain numbers.
        dx, dy = 0.9 * (x - 50), 0.9 * (y - 50)
        dx += math.tan(math.radians(10)) * dy
        turned_x = dx * math.cos(math.radians(30)) - dy * math.sin(math.radians(30))
        turned_y = dx * math.sin(math.radians(30)) + dy * math.cos(math.radians(30))
        np.testing.assert_allclose(matrix @ (x, y, 1), (turned_x + 60, turned_y + 45, 1))


def test_density_target_is_a_gaussian_that_sums_to_one_everywhere():
    middle = density_target([[20.5, 12.5]], (30, 40), sigma=1.5)
    ys, xs = np.mgrid[:30, :40]
    squared = (xs - 20) ** 2 + (ys - 12) ** 2
    expected = np.exp(-squared / (2 * 1.5**2)) * ((abs(xs - 20) <= 6) & (abs(ys - 12) <= 6))
    np.testing.assert_allclose(middle, expected / expected.sum(), atol=1e-7)
    for point in ([0.0, 0.0], [39.99, 29.99], [0.2, 15.0], [20.3, 29.9]):
        for sigma in (0.05, 1.0, 4.0, 50.0):
            target = density_target([point], (30, 40), sigma)
            assert target.sum() == pytest.approx(1.0, rel=1e-5)
            assert (target >= 0).all()
            assert target[int(point[1]), int(point[0])] > 0
    outside = [[-0.1, 5.0], [40.0, 5.0], [5.0, 30.0], [5.0, -3.0]]
    assert density_target([*outside, [5.0, 5.0]], (30, 40)).sum() == pytest.approx(1.0, rel=1e-5)
    assert density_target([], (30, 40)).sum() == 0


def test_samples_depend_on_seed_epoch_and_index_alone(density_processor, make_image):
    rows = [{"image": make_image(90, 70, seed), "points": [[30.0, 30.0]], "text": "dots"} for seed in range(3)]

    def samples(seed: int, epoch: int) -> torch.Tensor:
        dataset = DensityTrainingDataset(rows, density_processor, seed=seed, resize=60)
        dataset.set_epoch(epoch)
        np.random.seed(torch.randint(100, ()).item())
        return torch.stack([dataset[index]["pixel_values"] for index in (2, 0, 1)])

    first = samples(0, 4)
    assert torch.equal(first, samples(0, 4))
    assert not torch.equal(first, samples(0, 5))
    assert not torch.equal(first, samples(1, 4))


def test_epoch_reaches_workers_that_live_on(density_processor, make_image):
    rows = [{"image": make_image(90, 70), "points": [[30.0, 30.0]], "text": "dots"}] * 2
    dataset = DensityTrainingDataset(rows, density_processor, seed=0, resize=60)
    loader = torch.utils.data.DataLoader(
        dataset, num_workers=1, persistent_workers=True, collate_fn=lambda samples: samples[0]["pixel_values"]
    )
    for epoch in range(2):
        dataset.set_epoch(epoch)
        from_worker = list(loader)
        for index in range(2):
            assert torch.equal(from_worker[index], dataset[index]["pixel_values"])


def test_image_that_cannot_be_read_is_named(density_processor, tmp_path, make_image):
    path = tmp_path / "cut_off.png"
    make_image(50, 50).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    rows = [{"image": Image.open(path), "image_id": "tile 7", "points": [], "text": "dots"}]
    with pytest.raises(ValueError, match=r"(?s)row 0 \(image_id 'tile 7', file .*cut_off\.png.*Replace the file"):
        DensityTrainingDataset(rows, density_processor)[0]


def test_rows_without_points_are_refused(density_processor, make_image):
    rows = [{"image": make_image(50, 50), "image_id": "x", "count": 3, "text": "dots"}]
    with pytest.raises(ValueError, match="image_id 'x'.*`points`"):
        DensityTrainingDataset(rows, density_processor)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"resize": 20}, "`resize` .20. must be at least `window_size` .48."),
        ({"scale_jitter": (1.5, 0.5)}, "scale_jitter"),
        ({"prompts_per_image": 0}, "`prompts_per_image` must be at least 1, but got 0"),
    ],
)
def test_options_out_of_range_are_refused(density_processor, options, message):
    with pytest.raises(ValueError, match=message):
        DensityTrainingDataset([], density_processor, **options)


def test_probability_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`blur_probability` must be between 0 and 1, but got 1.5"):
        DensityAugmentation(blur_probability=1.5)
