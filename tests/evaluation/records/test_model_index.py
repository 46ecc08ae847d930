import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard import metadata_load

from count_clip.evaluation.records.model_index import check_card, model_index, update_card


def _result(benchmark="countbench", partial=False, **metrics):
    data = {"name": "countbench", "config": None, "split": "test", "revision": "r1", "rows": 540, "total": 540}
    return {
        "benchmark": benchmark,
        "run": {"data": data},
        "partial": partial,
        "missing": 40 if partial else 0,
        "metrics": metrics or {"accuracy": 0.25, "mean_deviation": 1.5, "baseline_mae": 3.0, "top_5": None},
        "intervals": {"accuracy": [0.2, 0.3]},
    }


def test_figures_become_entries():
    entries = model_index(_result())
    assert all(isinstance(entry, EvalResult) for entry in entries)
    # A figure that is not there is none of the model, nor is a baseline's.
    assert [(entry.metric_type, entry.metric_value) for entry in entries] == [
        ("accuracy", 0.25),
        ("mean_deviation", 1.5),
    ]
    assert entries[0].metric_args == {"interval_95": [0.2, 0.3]}
    assert (entries[0].dataset_type, entries[0].dataset_split, entries[0].dataset_revision) == (
        "countbench",
        "test",
        "r1",
    )


def test_figures_of_a_part_are_labelled():
    assert {entry.dataset_name for entry in model_index(_result(partial=True))} == {"countbench (500 of 540 rows)"}


@pytest.mark.parametrize(("result", "words"), [({}, "lacks benchmark"), (_result("other"), "'other'")])
def test_other_files_are_rejected(result, words):
    with pytest.raises(ValueError, match=words):
        model_index(result)


CARD = """---
license: apache-2.0
tags:
- counting
model-index:
- name: given name
  results:
  - task:
      type: image-classification
    dataset:
      name: Beans
      type: beans
    metrics:
    - type: accuracy
      value: 0.9
---

# A model

Text with --- in it, and a table:

| a | b |
| --- | --- |
"""


def test_a_card_keeps_everything_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(CARD)
    assert update_card(tmp_path, _result()) == path
    text = path.read_text()
    assert text.split("\n---\n", 1)[1] == CARD.split("\n---\n", 1)[1]
    metadata = metadata_load(path)
    assert (metadata["license"], metadata["tags"]) == ("apache-2.0", ["counting"])
    card = ModelCard.load(path)
    assert card.data.model_name == "given name"
    found = {(one.dataset_type, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert found == {
        ("beans", "accuracy"): 0.9,
        ("countbench", "accuracy"): 0.25,
        ("countbench", "mean_deviation"): 1.5,
    }


def test_repeated_measurements_replace_earlier_ones(tmp_path):
    update_card(tmp_path, _result(partial=True))
    update_card(tmp_path, _result(accuracy=0.75))
    card = ModelCard.load(tmp_path / "README.md")
    found = [(one.metric_type, one.metric_value, one.dataset_name) for one in card.data.eval_results]
    assert ("accuracy", 0.75, "countbench") in found
    assert [metric for metric, *_ in found].count("accuracy") == 1
    assert card.data.model_name == tmp_path.name
    assert card.text.strip() == f"# {tmp_path.name}"


def test_benchmarks_of_one_task_on_the_same_data_stay_separate(tmp_path):
    update_card(tmp_path, _result("density", mae=2.0))
    update_card(tmp_path, _result("praco", named_mae=3.0, nmn=0.5))
    update_card(tmp_path, _result("density", mae=1.0))
    results = metadata_load(tmp_path / "README.md")["model-index"][0]["results"]
    found = {one["task"]["name"]: {metric["name"]: metric["value"] for metric in one["metrics"]} for one in results}
    assert found == {
        "Counting what is named in words": {"mae": 1.0},
        "Whether the count follows the prompt": {"named mae": 3.0, "nmn": 0.5},
    }


def test_a_card_that_cannot_be_read_is_rejected_and_kept(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        check_card(tmp_path / "gone")
    path = tmp_path / "README.md"
    for text in ("---\n[: broken\n---\n", "---\nmodel-index:\n- name: x\n---\n"):
        path.write_text(text)
        for call in (lambda: check_card(tmp_path), lambda: update_card(tmp_path, _result())):
            with pytest.raises(ValueError, match="README.md"):
                call()
        assert path.read_text() == text
