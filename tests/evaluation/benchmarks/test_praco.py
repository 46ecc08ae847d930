import io
import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import ModelOutput

from count_clip.datasets_scripts.captions.plurals import plural_of
from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.datasets_scripts.formats.folders import read_coco
from count_clip.evaluation.benchmarks.density import evaluate_density
from count_clip.evaluation.benchmarks.praco import evaluate_praco


COLORS = {"red blocks": (255, 0, 0), "green blocks": (0, 255, 0), "blue blocks": (0, 0, 255)}
SIDE = 48


class BlockCounter(torch.nn.Module):
    """Counts blocks of the prompt's colour, without error; or all blocks, for any prompt."""

    def __init__(self, tokenizer, blind=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.tokenizer = tokenizer
        self.blind = blind

    def get_text_embeds(self, input_ids, attention_mask=None):
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        return torch.tensor([COLORS["".join(text.split()).replace("blocks", " blocks")] for text in texts]) / 255

    def forward(self, pixel_values, text_embeds):
        mean, std = (np.reshape(values, (3, 1, 1)) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        density_map = np.zeros((*text_embeds.shape[:2], *pixel_values.shape[-2:]), np.float32)
        for i, window in enumerate(pixel_values.numpy() * std + mean):
            for j, color in enumerate(text_embeds[i].numpy()):
                colors = [np.array(known) / 255 for known in COLORS.values()] if self.blind else [color]
                for wanted in colors:
                    matches = np.abs(window - wanted[:, None, None]).max(axis=0) < 0.4
                    labels, number = ndimage.label(matches)
                    for y, x in ndimage.center_of_mass(matches, labels, range(1, number + 1)):
                        density_map[i, j, int(y), int(x)] += 1
        return ModelOutput(density_map=torch.from_numpy(density_map))


@pytest.fixture
def perfect(tokenizer):
    return BlockCounter(tokenizer)


@pytest.fixture
def blind(tokenizer):
    return BlockCounter(tokenizer, blind=True)


# Away from the edges of all windows, which may not cut a block.
PLACES = [(x, y) for y in (6, 33) for x in (4, 15, 26, 37)]


def draw_blocks(counts, side=SIDE):
    image = Image.new("RGB", (side, side))
    colors = [color for text, color in COLORS.items() for _ in range(counts.get(text, 0))]
    assert len(colors) <= len(PLACES)
    for (x, y), color in zip(PLACES, colors, strict=False):
        ImageDraw.Draw(image).rectangle([x, y, x + 6, y + 6], fill=color)
    return image


def rows_of(images):
    """A row for each colour that is given; what is not drawn and not given is not known."""
    return [
        {"image": draw_blocks(counts), "image_id": name, "text": text, "count": count}
        for name, counts in images.items()
        for text, count in counts.items()
    ]


BLOCKS = {
    "a": {"red blocks": 4, "green blocks": 0, "blue blocks": 0},
    "b": {"red blocks": 0, "green blocks": 2, "blue blocks": 0},
    "c": {"red blocks": 0, "green blocks": 0, "blue blocks": 5},
    "d": {"red blocks": 3, "green blocks": 0, "blue blocks": 0},
}


@pytest.fixture
def rows():
    return rows_of(BLOCKS)


def measure(model, processor, rows, **options):
    return evaluate_praco(model, processor, rows, progress=False, **options)


# What the figures mean


@pytest.mark.parametrize("layout", ["square", "stacked"])
def test_a_perfect_counter_has_perfect_figures(perfect, density_processor, rows, layout):
    figures = measure(perfect, density_processor, rows, mosaic_layout=layout, mosaics_per_image=None).figures
    assert figures.named.mae == figures.absent.mae == figures.nmn == 0
    assert figures.pccn == 100
    assert (figures.precision, figures.recall, figures.f1) == pytest.approx((1, 1, 1))
    assert figures.other is None


@pytest.mark.parametrize("layout", ["square", "stacked"])
def test_a_counter_that_ignores_the_prompt_gets_the_worst(blind, density_processor, rows, layout):
    result = measure(blind, density_processor, rows, mosaic_layout=layout, mosaics_per_image=None)
    figures = result.figures
    # Right for objects in the image, and the same number for absent ones.
    assert figures.named.mae == 0
    assert figures.absent.mae == pytest.approx((4 + 2 + 5 + 3) / 4)
    assert figures.nmn == 1
    assert figures.pccn == 0
    assert figures.recall == pytest.approx(1)
    # Below each image is one of each other colour: below a, the 2 green ones or the 5 blue ones. Below b
    # and c, the red ones are 4 or 3, whichever image was drawn.
    red_below = {mosaic.image_id: mosaic.other_total for mosaic in result.mosaics if mosaic.other_image_id in "ad"}
    totals_of = {"a": (6, 9), "b": (2 + red_below["b"], 7), "c": (5 + red_below["c"], 7), "d": (5, 8)}
    true = {"a": 4, "b": 2, "c": 5, "d": 3}
    precision = [np.mean([true[name] / total for total in totals]) for name, totals in totals_of.items()]
    f1 = [np.mean([2 * true[name] / (total + true[name]) for total in totals]) for name, totals in totals_of.items()]
    assert figures.precision == pytest.approx(np.mean(precision))
    assert figures.f1 == pytest.approx(np.mean(f1))


def test_counting_all_is_what_a_blind_counter_gets(perfect, blind, density_processor):
    several = {
        "a": {"red blocks": 4, "green blocks": 1, "blue blocks": 0},
        "b": {"red blocks": 0, "green blocks": 2, "blue blocks": 3},
        "c": {"red blocks": 0, "green blocks": 0, "blue blocks": 5},
    }
    reference = measure(perfect, density_processor, rows_of(several)).counts_all
    measured = measure(blind, density_processor, rows_of(several))
    assert reference == measured.counts_all
    for name in ("nmn", "pccn", "precision", "recall", "f1"):
        assert getattr(measured.figures, name) == pytest.approx(getattr(reference, name)), name
    for role in ("named", "other", "absent"):
        assert getattr(measured.figures, role).mae == pytest.approx(getattr(reference, role).mae)


def test_the_roles_of_prompts_are_distinguished(blind, density_processor):
    several = {"a": {"red blocks": 4, "green blocks": 1, "blue blocks": 0}}
    result = measure(blind, density_processor, rows_of(several))
    (image,) = result.images
    assert [(prompt.role, prompt.predicted) for prompt in image.prompts] == [
        ("named", 5),
        ("other", 5),
        ("absent", 5),
    ]
    named, other, absent = image.prompts
    assert {named.text: named.count, other.text: other.count} == {"red blocks": 4, "green blocks": 1}
    assert (absent.text, absent.count) == ("blue blocks", 0)
    figures = result.figures
    assert (figures.named.mae, figures.other.mae) == (5 - named.count, 5 - other.count)
    assert (figures.absent.n, figures.absent.mae, figures.absent.mean_predicted) == (1, 5, 5)
    assert figures.nmn == 5 / named.count
    # There is no other image.
    assert (result.num_mosaics, result.num_without_partner, figures.f1) == (0, 1, None)


def test_what_is_left_out_is_counted(perfect, density_processor, rows):
    more = {
        "empty": {"red blocks": 0, "green blocks": 0},
        "nothing known": {"green blocks": 3},
        "two": {"red blocks": 1, "green blocks": 1, "blue blocks": 0},
    }
    result = measure(perfect, density_processor, [*rows, *rows_of(more)])
    assert result.num_images == 7
    assert result.num_empty == 1
    assert result.num_single_class == 5
    assert result.num_without_absent == 1
    # The green ones of "nothing known" are known not to be in a, c and d.
    assert (result.num_mosaics, result.num_without_partner) == (6, 0)
    assert result.figures.named.n == 6
    # NMN would be 0 / 0 where there is nothing.
    assert result.figures.nmn == 0
    assert result.figures.pccn == 100


def test_a_counter_that_predicts_zero_has_no_precision(perfect, density_processor, rows, monkeypatch):
    monkeypatch.setattr(perfect, "forward", silence)
    result = measure(perfect, density_processor, rows)
    assert result.num_without_precision == result.num_mosaics == 4
    assert result.figures.precision is None
    assert (result.figures.recall, result.figures.f1) == (0, 0)
    assert "precision" not in result.intervals
    assert result.figures.nmn == 0
    # As far from the truth with the right prompt as with the wrong ones.
    assert result.figures.pccn == 0


def silence(pixel_values, text_embeds):
    return ModelOutput(density_map=torch.zeros(*text_embeds.shape[:2], *pixel_values.shape[-2:]))


def test_intervals_hold_the_figures(blind, density_processor, rows):
    result = measure(blind, density_processor, rows)
    assert set(result.intervals) == {"named_mae", "absent_mae", "nmn", "pccn", "precision", "recall", "f1"}
    assert result.intervals["named_mae"] == (0, 0)
    assert result.intervals["nmn"] == (1, 1)
    low, high = result.intervals["absent_mae"]
    assert 2 <= low < result.figures.absent.mae < high <= 5
    assert measure(blind, density_processor, rows).intervals == result.intervals


def test_everything_goes_into_json(perfect, density_processor, rows):
    record = json.loads(json.dumps(measure(perfect, density_processor, rows, seed=5).to_dict()))
    assert record["options"] == {
        "seed": 5,
        "num_negatives": 8,
        "mosaics_per_image": 1,
        "mosaic_layout": "square",
        "unlisted_are_absent": False,
    }
    assert [image["image_id"] for image in record["images"]] == ["a", "b", "c", "d"]
    assert record["images"][0]["prompts"][0] == {
        "text": "red blocks",
        "role": "named",
        "count": 4.0,
        "predicted": 4.0,
    }
    assert len(record["mosaics"]) == 4


# How it is done


def test_images_are_encoded_once_and_so_are_prompts(perfect, density_processor, rows, monkeypatch):
    windows, prompts = [], []
    forward, encode = perfect.forward, perfect.get_text_embeds

    def record_windows(pixel_values, text_embeds):
        windows.append(len(pixel_values))
        return forward(pixel_values, text_embeds)

    def record_prompts(input_ids, attention_mask=None):
        prompts.extend(encode(input_ids).tolist())
        return encode(input_ids)

    monkeypatch.setattr(perfect, "forward", record_windows)
    monkeypatch.setattr(perfect, "get_text_embeds", record_prompts)
    measure(perfect, density_processor, rows, batch_size=64)
    # Four images and four mosaics of one window each, images and mosaics in separate batches.
    assert windows == [4, 4]
    assert sorted(prompts) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_counts_are_those_of_each_row_alone(density_model, density_processor, batch_size):
    scenes = CountScenes("test", config="mixed", objects="shapes", image_size=64, num_scenes=5, absent_probability=0.0)
    alone = evaluate_density(density_model, density_processor, scenes, progress=False)
    result = measure(density_model, density_processor, scenes, num_negatives=2, batch_size=batch_size)
    named = [image.of_role("named")[0] for image in result.images]
    assert [prompt.text for prompt in named] == [row.text for row in alone.predictions]
    assert [prompt.predicted for prompt in named] == pytest.approx([row.predicted for row in alone.predictions], 1e-4)
    assert result.figures.named.mae == pytest.approx(alone.mae, 1e-4)
    assert all(len(image.of_role("absent")) == 2 for image in result.images)
    assert all(len(image.of_role("other")) in (1, 2) for image in result.images)
    assert result.num_mosaics == 5


def test_saved_scenes_give_what_drawn_ones_give(density_model, density_processor):
    scenes = CountScenes("test", config="mixed", objects="shapes", image_size=64, num_scenes=4)

    def saved(scene):
        png = io.BytesIO()
        scene["image"].save(png, format="PNG")
        return {**scene, "image": {"bytes": png.getvalue(), "path": None}}

    dataset = datasets.Dataset.from_list([saved(scene) for scene in scenes], features=scenes.features)
    drawn, kept = (
        measure(density_model, density_processor, rows, num_negatives=2).to_dict() for rows in (scenes, dataset)
    )
    for measured, other in zip(drawn["mosaics"], kept["mosaics"], strict=True):
        assert measured["other_image_id"] == other["other_image_id"]
        assert measured["predicted"] == pytest.approx(other["predicted"], 1e-4)
    assert drawn["figures"]["nmn"] == pytest.approx(kept["figures"]["nmn"], 1e-4)


def test_a_generator_of_rows_will_do(perfect, density_processor, rows):
    assert measure(perfect, density_processor, (row for row in rows)) == measure(perfect, density_processor, rows)


def test_half_precision_counts_nearly_the_same(density_model, density_processor):
    scenes = CountScenes("test", config="mixed", objects="shapes", image_size=64, num_scenes=2)
    exact = measure(density_model, density_processor, scenes, num_negatives=2)
    rough = measure(density_model, density_processor, scenes, num_negatives=2, dtype=torch.bfloat16)
    assert next(density_model.parameters()).dtype == torch.bfloat16
    assert rough.figures.named.mean_predicted == pytest.approx(exact.figures.named.mean_predicted, rel=0.1)


# What cannot be measured


def test_images_that_cannot_be_read_are_listed_and_in_no_mosaic(perfect, density_processor, rows, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(b"\x89PNG\r\n\x1a\n")
    bad = [{"image": cut, "image_id": "bad", "text": text, "count": i} for i, text in enumerate(COLORS)]
    result = measure(perfect, density_processor, [*bad, *rows, {"image": rows[0]["image"], "text": "x", "count": 1}])
    assert [(row.index, row.image_id) for row in result.skipped] == [(0, "bad"), (len(bad) + len(rows), None)]
    assert "cut.png" in result.skipped[0].reason
    assert [image.image_id for image in result.images] == ["a", "b", "c", "d"]
    assert not any("bad" in (mosaic.image_id, mosaic.other_image_id) for mosaic in result.mosaics)
    with pytest.raises(ValueError, match="None of the 1 rows .*cut.png"):
        measure(perfect, density_processor, bad)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ({}, {}, "data is empty"),
        ({"a": {"red blocks": 1}, "b": {"green blocks": 1}}, {}, "none of the 2 images has both.*unlisted_are"),
        ({"a": {"red blocks": 0}, "b": {"green blocks": 0}}, {}, "none of the 2 images has both"),
        (BLOCKS, {"num_negatives": 0}, "`num_negatives` of at least 1"),
        (BLOCKS, {"mosaics_per_image": -1}, "`mosaics_per_image` of at least 0"),
        (BLOCKS, {"mosaic_layout": "round"}, "square, stacked, but got 'round'"),
        (BLOCKS, {"batch_size": 0}, "`batch_size` of at least 1"),
    ],
)
def test_invalid_arguments_are_rejected(perfect, density_processor, images, options, words):
    with pytest.raises(ValueError, match=words):
        measure(perfect, density_processor, rows_of(images), **options)


def test_unlisted_classes_can_be_absent(perfect, density_processor):
    listed = {"a": {"red blocks": 2}, "b": {"green blocks": 1}}
    figures = measure(perfect, density_processor, rows_of(listed), unlisted_are_absent=True).figures
    assert (figures.nmn, figures.pccn, figures.f1) == (0, 100, 1)
    assert figures.absent.n == 2


def test_mosaics_can_be_left_out(perfect, density_processor, rows):
    result = measure(perfect, density_processor, rows, mosaics_per_image=0)
    assert (result.mosaics, result.num_without_partner, result.figures.f1) == ([], 0, None)


def test_rows_without_image_id_are_refused(perfect, density_processor, rows):
    nameless = [{name: value for name, value in row.items() if name != "image_id"} for row in rows]
    with pytest.raises(ValueError, match="has no `image_id`"):
        measure(perfect, density_processor, nameless)


def test_broken_weights_are_an_error(density_model, density_processor):
    density_model.text_projection.weight.data.fill_(float("nan"))
    scenes = CountScenes("test", config="mixed", objects="shapes", image_size=64, num_scenes=2)
    with pytest.raises(ValueError, match="non-finite"):
        measure(density_model, density_processor, scenes)


def test_other_models_and_processors_are_refused(counting_model, perfect, counting_processor, density_processor, rows):
    with pytest.raises(TypeError, match="CLIPForCounting"):
        measure(counting_model, density_processor, rows)
    with pytest.raises(TypeError, match="CountCLIPProcessor"):
        measure(perfect, counting_processor, rows)


# Photographs


def test_photographs_with_several_classes(shared, density_model, density_processor):
    rows = read_coco(shared / "data" / "coco_photos", names=plural_of)
    few = [row for row in rows if row["image_id"] in {row["image_id"] for row in rows[:240]}]
    result = measure(density_model, density_processor, few, num_negatives=2)
    assert result.num_images == 3
    assert result.figures.absent.n == 6
    assert all(prompt.count == 0 for image in result.images for prompt in image.of_role("absent"))
    assert result.num_mosaics + result.num_without_partner == 3
