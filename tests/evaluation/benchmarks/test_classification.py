import datasets
import numpy as np
import pytest
import torch

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.evaluation.benchmarks.classification import (
    DEFAULT_TEMPLATES,
    class_embeddings,
    classification_result,
    evaluate_classification,
)
from count_clip.evaluation.benchmarks.labelled import Features, class_names
from count_clip.evaluation.inference.encoding import Encoder, evaluating


NAMES = ["cats", "dogs", "ants", "bees", "cows", "hens", "pigs"]
TEMPLATES = ["a photo of {}.", "{} at night", "many {}"]


@pytest.fixture
def rows(make_image):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    records = [{"image": make_image(40 + i, 44, i), "label": i % 7} for i in range(10)]
    return datasets.Dataset.from_list(records, features=features).cast_column("image", datasets.Image(decode=False))


@torch.no_grad()
def _reference_scores(model, processor, images, names, templates):
    """One sentence and one image at a time through the model's own forward, and the means by hand."""
    directions = []
    for name in names:
        embeds = []
        for template in templates:
            inputs = processor(
                images=[images[0]], text=[template.replace("{}", name)], return_tensors="pt", padding=True
            )
            embeds.append(model(**inputs).text_embeds[0].double().numpy())
        mean = np.mean([one / np.linalg.norm(one) for one in embeds], axis=0)
        directions.append(mean / np.linalg.norm(mean))
    image_vectors = []
    for image in images:
        inputs = processor(images=[image], text=["x"], return_tensors="pt", padding=True)
        one = model(**inputs).image_embeds[0].double().numpy()
        image_vectors.append(one / np.linalg.norm(one))
    return np.array(image_vectors) @ np.array(directions).T


def test_classes_are_means_of_their_prompts(counting_model, counting_processor, rows, make_image):
    result = evaluate_classification(
        counting_model, counting_processor, rows, templates=TEMPLATES, batch_size=3, progress=False
    )
    images = [make_image(40 + i, 44, i) for i in range(10)]
    expected = _reference_scores(counting_model, counting_processor, images, NAMES, TEMPLATES)
    order = np.argsort(-expected, axis=1)
    np.testing.assert_array_equal(result.best, order[:, :5])
    np.testing.assert_allclose(result.best_scores, np.take_along_axis(expected, order[:, :5], axis=1), atol=2e-6)
    labels = np.arange(10) % 7
    right = order[:, 0] == labels
    assert result.top_1 == right.mean()
    assert result.top_5 == np.mean([label in best for label, best in zip(labels, order[:, :5], strict=True)])
    assert result.mean_per_class == pytest.approx(np.mean([right[labels == label].mean() for label in range(7)]))


def test_the_mean_of_prompts_has_unit_length(counting_model, counting_processor):
    with evaluating(counting_model) as (device, dtype):
        encoder = Encoder(counting_model, counting_processor, device, dtype, 4)
        embeds = class_embeddings(encoder, NAMES, TEMPLATES)
        one = class_embeddings(encoder, NAMES, TEMPLATES[:1])
        np.testing.assert_allclose(one, encoder.texts([f"a photo of {name}." for name in NAMES]), atol=1e-6)
    np.testing.assert_allclose(embeds.norm(dim=-1), np.ones(7), atol=1e-6)
    assert not torch.allclose(embeds, one, atol=1e-3)


def test_every_default_template_has_one_place_for_a_name():
    assert len(set(DEFAULT_TEMPLATES)) == len(DEFAULT_TEMPLATES) >= 24
    assert all(template.count("{}") == 1 for template in DEFAULT_TEMPLATES)


def _features(labels):
    number = len(labels)
    return Features(np.zeros((number, 1), np.float32), np.array(labels), np.arange(number), [None] * number)


def test_figures_by_hand():
    # Three rows of class 0, one of class 1, none of class 2 and so on.
    scores = np.zeros((4, 6))
    scores[0, 0] = scores[1, 0] = scores[3, 1] = 1
    scores[2] = [-1, 5, 4, 3, 2, 1]
    result = classification_result(scores, _features([0, 0, 0, 1]), list("abcdef"))
    assert result.top_1 == 3 / 4
    assert result.top_5 == 3 / 4
    assert result.mean_per_class == pytest.approx((2 / 3 + 1) / 2)
    assert result.by_class() == {"a": {"n": 3, "accuracy": pytest.approx(2 / 3)}, "b": {"n": 1, "accuracy": 1.0}}
    low, high = result.intervals()["top_1"]
    assert low <= 3 / 4 <= high
    written = result.to_dict()
    assert written["rows"][2]["prediction"] == "b"
    assert written["rows"][2]["best"] == [["b", 5], ["c", 4], ["d", 3], ["e", 2], ["f", 1]]


def test_five_classes_have_no_top_five():
    assert classification_result(np.eye(5), _features(range(5)), list("abcde")).top_5 is None


def test_scores_that_are_not_finite_are_an_error():
    scores = np.eye(3)
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 3 images are NaN"):
        classification_result(scores, _features(range(3)), list("abc"))


def test_broken_weights_are_an_error(counting_model, counting_processor, rows):
    torch.nn.init.constant_(counting_model.visual_projection.weight, float("nan"))
    with pytest.raises(ValueError, match="10 of 10 images are NaN"):
        evaluate_classification(counting_model, counting_processor, rows, progress=False)


def test_rows_that_cannot_be_measured_are_listed(counting_model, counting_processor, make_image):
    records = [
        {"image": make_image(40, 40), "class": "cats", "image_id": "good"},
        {"image": None, "class": "cats", "image_id": "none"},
        {"image": make_image(40, 40), "class": None, "image_id": "nameless"},
        {"image": make_image(40, 40), "class": "bears", "image_id": "other"},
    ]
    rows = _Rows(records)
    result = evaluate_classification(
        counting_model, counting_processor, rows, label_column="class", names=NAMES, progress=False
    )
    assert (result.n, result.image_ids) == (1, ["good"])
    reasons = {row.image_id: row.reason for row in result.skipped}
    assert "no 'class'" in reasons["nameless"]
    assert "'bears' is not among the 7" in reasons["other"]
    assert "none" in reasons
    assert len(result.to_dict()["skipped"]) == 3


class _Rows(list):
    """Rows with the columns of a data set."""

    @property
    def column_names(self):
        return list(self[0])

    def column(self, name):
        return [row[name] for row in self]


def test_scenes_are_classified_by_their_objects(counting_model, counting_processor):
    scenes = CountScenes("test", num_scenes=6, image_size=48)
    result = evaluate_classification(
        counting_model, counting_processor, scenes, label_column="name", templates=TEMPLATES, progress=False
    )
    assert len(result.names) > 50 > len(set(scenes.column("name")))  # with classes that do not occur
    assert [result.names[label] for label in result.labels] == scenes.column("name")


def _set(values, feature=None):
    features = datasets.Features(
        {"label": feature or datasets.Value("int64" if isinstance(values[0], int) else "string")}
    )
    return datasets.Dataset.from_dict({"label": values}, features=features)


def test_names_of_classes():
    assert class_names(_set([1, 0], datasets.ClassLabel(names=["a", "b", "c"])), "label") == ["a", "b", "c"]
    assert class_names(_set(["b", "a", "b", None]), "label") == ["a", "b"]
    assert class_names(_set([1, 0]), "label", ["x", "y"]) == ["x", "y"]
    assert class_names(_set([1, 0], datasets.ClassLabel(names=["a", "b"])), "label", ["better", "names"]) == [
        "better",
        "names",
    ]


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (_set([3, 0]), {}, "are numbers (0 to 3), and the data has no names"),
        (_set([3, 0]), {"names": ["a", "b"]}, "a name for class 3"),
        (_set([1, 0], datasets.ClassLabel(names=["a", "b"])), {"names": ["a"]}, "2 names"),
        (_set(["a", "a"]), {}, "at least two different names"),
        (_set(["a", "b"]), {"names": ["a", "b", "a"]}, "['a'] more than once"),
        (_set(["a"]).select([]), {}, "the data is empty"),
        (
            _set(["a", "b"]),
            {"label_column": "class"},
            "a column 'class' with the class of each image, but there are label",
        ),
    ],
)
def test_classes_without_names_are_rejected(rows, options, words):
    with pytest.raises(ValueError) as caught:
        class_names(rows, **{"label_column": "label", **options})
    assert words in str(caught.value)


@pytest.mark.parametrize("values", [[[1, 2], [0]], [0.5, 1.5]])
def test_values_that_are_not_classes_are_rejected(values):
    rows = datasets.Dataset.from_dict({"label": values})
    with pytest.raises(ValueError, match="one class a row"):
        class_names(rows, "label")


@pytest.mark.parametrize(
    ("templates", "words"),
    [
        ([], "at least one template"),
        (["a photo"], "one {} for the name in each template"),
        (["{} and {}"], "one {} for the name in each template"),
        (["x" * 50 + " {}"], "'cats' and 'dogs' in .* are the same"),
    ],
)
def test_bad_templates_are_rejected(counting_model, counting_processor, rows, templates, words):
    with pytest.raises(ValueError, match=words):
        evaluate_classification(counting_model, counting_processor, rows, templates=templates, progress=False)


def test_data_without_a_measurable_row_is_an_error(counting_model, counting_processor, rows):
    unreadable = rows.map(lambda row: {"image": {"bytes": b"junk", "path": None}})
    with pytest.raises(ValueError, match="None of the 10 rows"):
        evaluate_classification(counting_model, counting_processor, unreadable, progress=False)
