import json

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from count_clip.evaluation.inference.encoding import Encoder, evaluating
from count_clip.evaluation.inference.image_index import ImageIndex, ImageIndexError, build_index, model_fingerprint


pytest.importorskip("faiss", reason="an index needs FAISS: pip install count-clip[retrieval]")


@pytest.fixture
def rows(make_image):
    return [
        {
            "image": make_image(32 + seed, 40, seed),
            "image_id": f"p{seed}",
            "file": f"/there/{seed}.png",
            "version": "1",
        }
        for seed in range(7)
    ]


@pytest.fixture
def build(counting_model, counting_processor, tmp_path):
    def run(rows, model=counting_model, folder=tmp_path / "index", **options):
        return build_index(model, counting_processor, rows, folder, batch_size=2, progress=False, **options)

    return run


@pytest.fixture
def encoded(monkeypatch):
    """How many images went through the model."""
    number = [0]
    original = Encoder.images

    def counting(self, images):
        number[0] += len(images)
        return original(self, images)

    monkeypatch.setattr(Encoder, "images", counting)
    return number


def test_search_finds_what_comparing_all_finds(build, rows, counting_model, counting_processor, tmp_path):
    build(rows)
    index = ImageIndex.load(tmp_path / "index")
    assert len(index) == 7
    texts = ["three dogs", "ten X"]
    found = index.search_texts(counting_model, counting_processor, texts, top=3)
    with evaluating(counting_model) as (where, dtype):
        encoder = Encoder(counting_model, counting_processor, where, dtype, 8)
        scores = (encoder.texts(texts) @ encoder.images([row["image"] for row in rows]).T).numpy()
    for hits, line in zip(found, scores, strict=True):
        order = np.argsort(-line)[:3]
        assert [hit.image_id for hit in hits] == [f"p{place}" for place in order]
        assert [hit.score for hit in hits] == pytest.approx(line[order].tolist(), abs=1e-5)
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert hits[0].file == f"/there/{order[0]}.png"
    record = found[0][0].to_dict()
    assert set(record) == {"rank", "score", "image_id", "file"}


def test_a_larger_number_than_available_selects_all(build, rows):
    index = build(rows)
    (hits,) = index.search(np.ones((1, 64)), top=99)
    assert sorted(hit.image_id for hit in hits) == [f"p{seed}" for seed in range(7)]


def test_images_that_cannot_be_read_are_reported_and_the_rest_is_indexed(build, rows, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    rows.insert(1, {"image": str(broken), "image_id": "broken"})
    rows.append({"image_id": "film", "error": "film.mp4 holds no images"})
    index = build(rows)
    assert len(index) == 7
    left_out = ImageIndex.load(tmp_path / "index").about["skipped"]
    assert [one["image_id"] for one in left_out] == ["broken", "film"]
    assert "cannot be read as an image" in left_out[0]["reason"]
    assert left_out[1]["reason"] == "film.mp4 holds no images"


def test_an_interrupted_build_resumes(build, rows, encoded, monkeypatch, tmp_path):
    monkeypatch.setattr("count_clip.evaluation.inference.image_index._KEEP_EVERY", 2)

    def interrupted():
        yield from rows[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(interrupted())
    assert encoded[0] == 4
    with pytest.raises(ImageIndexError, match="interrupted: start it once more"):
        ImageIndex.load(tmp_path / "index")
    index = build(rows)
    assert encoded[0] == 7
    whole = build(rows, folder=tmp_path / "other")
    np.testing.assert_allclose(index.vectors(), whole.vectors(), atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "images.parquet",
        "index.faiss",
        "index.json",
    ]


def test_embeddings_are_kept_after_an_error(build, rows, encoded):
    def cut_off():
        yield from rows[:4]
        raise OSError("the disk has gone")

    with pytest.raises(OSError, match="the disk has gone"):
        build(cut_off())
    build(rows)
    assert encoded[0] == 7


def test_an_index_is_brought_up_to_date(build, rows, encoded, make_image, tmp_path):
    build(rows)
    changed = [{**rows[0], "image": make_image(50, 50, 90), "version": "2"}, *rows[2:], {**rows[0], "image_id": "new"}]
    index = build(changed)
    assert encoded[0] == 7 + 2
    assert index.images["image_id"][:] == ["p0", "p2", "p3", "p4", "p5", "p6", "new"]
    expected = build(changed, folder=tmp_path / "fresh")
    np.testing.assert_allclose(index.vectors(), expected.vectors(), atol=1e-6)


def test_rows_of_one_name_are_one_image(build, rows):
    assert len(build([*rows, rows[0]])) == 7
    assert build([{"image": row["image"]} for row in rows]).images["image_id"][:3] == ["0", "1", "2"]


def test_another_model_is_refused(build, rows, counting_model, counting_processor, tmp_path):
    index = build(rows, model_name="org/one")
    with torch.no_grad():
        counting_model.visual_projection.weight[0, 0] += 1
    message = "made with another model: org/one with weights .* in float32, and not"
    with pytest.raises(ImageIndexError, match=message):
        index.search_texts(counting_model, counting_processor, ["two"])
    with pytest.raises(ImageIndexError, match=message):
        build(rows)
    (tmp_path / "index" / "index.json").unlink()
    (tmp_path / "index" / "parts").mkdir()
    (tmp_path / "index" / "parts" / "plan.json").write_text(json.dumps(index.about["model"]))
    with pytest.raises(ImageIndexError, match="The unfinished .* was made with another model"):
        build(rows)


def test_one_checkpoint_has_one_fingerprint(counting_model, tmp_path):
    counting_model.save_pretrained(tmp_path)
    name = model_fingerprint(counting_model)
    assert model_fingerprint(CLIPModel.from_pretrained(tmp_path)) == name
    assert model_fingerprint(CLIPModel.from_pretrained(tmp_path, dtype=torch.bfloat16)) == name
    with torch.no_grad():
        counting_model.logit_scale += 0.1
    assert model_fingerprint(counting_model) != name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "index.faiss").write_bytes(b"nothing"), "is broken: .*Build it once more"),
        (lambda place: (place / "images.parquet").unlink(), "is broken: .*Build it once more"),
        (lambda place: (place / "index.json").write_text("{}"), "does not describe an index"),
        (lambda place: (place / "index.json").write_text('{"format": 9}'), "has format 9, but this version reads 1"),
        (lambda place: (place / "index.json").unlink(), "There is no index of images in .*count-clip index"),
    ],
)
def test_a_damaged_index_is_named(build, rows, tmp_path, damage, message):
    build(rows)
    damage(tmp_path / "index")
    with pytest.raises(ImageIndexError, match=message):
        ImageIndex.load(tmp_path / "index")


def test_files_of_different_builds_are_not_mixed(build, rows, tmp_path):
    build(rows)
    build(rows[:3], folder=tmp_path / "small")
    for name, message in (
        ("index.faiss", "has 3 elements"),
        ("images.parquet", "has 7 images.*there are 3 in 64"),
    ):
        (tmp_path / "small" / name).replace(tmp_path / "index" / name)
        with pytest.raises(ImageIndexError, match=message):
            ImageIndex.load(tmp_path / "index")
    assert len(build(rows)) == 7  # and built anew
    assert len(ImageIndex.load(tmp_path / "index")) == 7


@pytest.mark.parametrize(
    ("embeds", "options", "message"),
    [
        (np.ones((1, 8)), {}, "shape \\(queries, 64\\), but got \\(1, 8\\)"),
        (np.full((1, 64), np.nan), {}, "text embeddings are NaN or infinite"),
        (np.ones((1, 64)), {"top": 0}, "`top` of at least 1"),
    ],
)
def test_bad_queries_are_refused(build, rows, embeds, options, message):
    with pytest.raises(ImageIndexError, match=message):
        build(rows).search(embeds, **options)


def test_bad_texts_are_refused(build, rows, counting_model, counting_processor):
    index = build(rows)
    with pytest.raises(ValueError, match="52 tokens.*reads 40"):
        index.search_texts(counting_model, counting_processor, ["x" * 50])
    with pytest.raises(ValueError, match="the text is empty"):
        index.search_texts(counting_model, counting_processor, [""])


def test_nothing_to_index_is_an_error(build, tmp_path):
    with pytest.raises(ImageIndexError, match="There are no images"):
        build([])
    with pytest.raises(ImageIndexError, match="None of the 1 images can be read. There is no file gone.png"):
        build([{"image": "gone.png"}])
    assert not (tmp_path / "index").exists()


def test_broken_weights_are_an_error(build, rows, counting_model):
    with torch.no_grad():
        counting_model.visual_projection.weight[0, 0] = float("nan")
    with pytest.raises(ImageIndexError, match="image embeddings are NaN or infinite"):
        build(rows)


def test_without_faiss_the_error_names_the_extra(build, rows, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install 'count-clip\\[retrieval\\]'"):
        build(rows)
