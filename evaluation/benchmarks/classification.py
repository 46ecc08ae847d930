"""CLIP's zero-shot classification: the prediction is the class nearest to the image, a mean of several prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..functional import bootstrap_interval
from ..inference.encoding import Encoder, SkippedRow, evaluating
from .labelled import Features, check_finite, class_names, embed_rows


DEFAULT_TEMPLATES = (
    "a photo of {}.",
    "a picture of {}.",
    "an image of {}.",
    "a photo of the {}.",
    "a photo with {} in it.",
    "a close photo of {}.",
    "{} seen from far away.",
    "{} seen from above.",
    "{} seen from the side.",
    "a bright photo of {}.",
    "a dark photo of {}.",
    "a sharp photo of {}.",
    "a blurred photo of {}.",
    "a photo of {}, a part of which is hidden.",
    "a photo of {} on a plain background.",
    "a photo of {} in front of something colourful.",
    "a photo of {} outdoors.",
    "a photo of {} indoors.",
    "a photo of {} at night.",
    "a snapshot of {}.",
    "a photo of {} taken by a professional.",
    "a poor scan of {}.",
    "a black and white photo of {}.",
    "a drawing of {}.",
    "a pencil sketch of {}.",
    "a painting of {}.",
    "a cartoon of {}.",
    "a simple icon of {}.",
    "a computer graphic of {}.",
    "a toy version of {}.",
    "one of many pictures of {}.",
    "there: {}.",
)
"""Templates of prompts for any data."""


@dataclass(frozen=True)
class ClassificationResult:
    """
    Results of a classification.

    Arrays have an entry for each measured row, in the order of the data.
    """

    names: list[str]
    """The classes."""
    labels: NDArray[np.int64]
    """`(N,)`: the true class."""
    best: NDArray[np.int64]
    """`(N, up to 5)`: the first classes, best first."""
    best_scores: NDArray[np.float32]
    """`(N, up to 5)`: their scores: cosine similarities, or log probabilities of a probe."""
    indices: NDArray[np.int64]
    """`(N,)`: the row of the data."""
    image_ids: list[str | None]
    """The image ids of the data, if it has them."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""
    about: dict[str, Any] = field(default_factory=dict)
    """The templates, or the settings of a probe."""

    @property
    def n(self) -> int:
        """Rows measured."""
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.float64]:
        """`(N,)`: 1 where the first class is the true one."""
        return (self.best[:, 0] == self.labels).astype(np.float64)

    @property
    def among_best(self) -> NDArray[np.float64]:
        """`(N,)`: 1 where the true class is among the first five."""
        return (self.best == self.labels[:, None]).any(axis=1).astype(np.float64)

    @property
    def top_1(self) -> float:
        """Share of the rows whose first class is right."""
        return float(self.correct.mean())

    @property
    def top_5(self) -> float | None:
        """Share of the rows whose class is among the first five; `None` for five classes or fewer."""
        return float(self.among_best.mean()) if len(self.names) > 5 else None

    @property
    def mean_per_class(self) -> float:
        """Mean accuracy of the classes that occur."""
        return _mean_per_class(self.correct, self.labels)

    def by_class(self) -> dict[str, dict[str, float]]:
        """Rows and accuracy of each class that occurs, in the order of the classes."""
        groups = {int(label): self.correct[self.labels == label] for label in np.unique(self.labels)}
        return {
            self.names[label]: {"n": right.size, "accuracy": float(right.mean())} for label, right in groups.items()
        }

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the rows."""
        samples = {"top_1": self.correct} | ({} if self.top_5 is None else {"top_5": self.among_best})
        ends = {name: bootstrap_interval(np.mean, right) for name, right in samples.items()}
        return {**ends, "mean_per_class": bootstrap_interval(_mean_per_class, self.correct, self.labels)}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return {
            "top_1": self.top_1,
            "top_5": self.top_5,
            "mean_per_class": self.mean_per_class,
            "n": self.n,
            "names": self.names,
            **self.about,
            "by_class": self.by_class(),
            "rows": [
                {
                    "index": int(index),
                    "image_id": image_id,
                    "label": self.names[label],
                    "prediction": self.names[best[0]],
                    "best": [
                        [self.names[one], round(float(score), 6)] for one, score in zip(best, scores, strict=True)
                    ],
                }
                for index, image_id, label, best, scores in zip(
                    self.indices, self.image_ids, self.labels, self.best, self.best_scores, strict=True
                )
            ],
            "skipped": [asdict(row) for row in self.skipped],
        }


def _mean_per_class(right: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Mean accuracy of the classes that occur."""
    places = labels.astype(np.int64)  # a bootstrap draws floats
    rows = np.bincount(places)
    present = rows > 0
    return float((np.bincount(places, weights=right)[present] / rows[present]).mean())


def classification_result(
    scores: NDArray[Any], features: Features, names: Sequence[str], about: dict[str, Any] | None = None
) -> ClassificationResult:
    """
    Compute the figures from scores `(N, num_classes)` and the features of the same rows; of equal scores, the class
    with the lower number is first.
    """
    check_finite(scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return ClassificationResult(
        list(names),
        features.labels,
        best,
        np.take_along_axis(scores, best, axis=1).astype(np.float32),
        features.indices,
        features.image_ids,
        features.skipped,
        dict(about or {}),
    )


def check_templates(templates: Sequence[str]) -> list[str]:
    """Raise a `ValueError` unless there are templates, each with exactly one `{}`; returns them."""
    if not templates:
        raise ValueError('Expected at least one template, like "a photo of {}.", but got none.')
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"Expected one {{}} for the name in each template, but got {template!r}.")
    return list(templates)


def class_embeddings(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """
    Unit embeddings of the classes, `(num_classes, projection_dim)`: the normalised mean of the unit embeddings of
    their prompts (Radford et al., CLIP, 2021, Sec. 3.1.4, https://arxiv.org/abs/2103.00020).
    """
    templates = check_templates(templates)
    prompts = [template.replace("{}", name) for name in names for template in templates]
    tokens = encoder.tokenize(prompts)
    for template_place, template in enumerate(templates):
        seen: dict[tuple[int, ...], str] = {}
        for name, ids in zip(names, tokens[template_place :: len(templates)], strict=True):
            other = seen.setdefault(tuple(ids), name)
            if other != name:
                raise ValueError(
                    f"{other!r} and {name!r} in {template!r} are the same {encoder.max_length} tokens to the model. "
                    "Shorten the template or the names."
                )
    embeds = encoder.texts(prompts).unflatten(0, (len(names), len(templates)))  # (C, T, P)
    return torch.nn.functional.normalize(embeds.mean(dim=1), dim=-1)


def evaluate_classification(
    model: Any,
    processor: Any,
    rows: Any,
    label_column: str = "label",
    image_column: str = "image",
    names: Sequence[str] | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> ClassificationResult:
    """
    Measure the zero-shot classification of a CLIP, as CLIP's authors do.

    Args:
        rows: A labelled `datasets.Dataset`, or another sequence of rows with `column_names`.
        label_column (`str`, *optional*, defaults to `"label"`): The column with the classes: `ClassLabel`, words,
            or integers with `names`.
        image_column (`str`, *optional*, defaults to `"image"`): The column with the images.
        names (`Sequence[str]`, *optional*): Names of the classes; by default those of the data.
        templates (`Sequence[str]`, *optional*, defaults to `DEFAULT_TEMPLATES`): Sentences with one `{}` each.
        batch_size (`int`, *optional*, defaults to 32): Images, or prompts, at once.
        model, processor, device, dtype, progress: As in [`evaluate_countbench`].

    Returns:
        [`ClassificationResult`]: The figures, and the skipped rows.

    Raises:
        ValueError: If the classes have no names, a template is not valid, no row can be measured, or the scores are
            not finite.
        TypeError: If the model is not a CLIP.

    Source:
        Radford et al., CLIP, 2021, Sec. 3.1 (https://arxiv.org/abs/2103.00020).
    """
    classes = class_names(rows, label_column, names)
    with evaluating(model, device, dtype) as (where, precision):
        encoder = Encoder(model, processor, where, precision, batch_size)
        class_embeds = class_embeddings(encoder, classes, templates)
        features = embed_rows(encoder, rows, label_column, classes, image_column, progress=progress)
    scores = features.vectors @ class_embeds.numpy().T
    return classification_result(scores, features, classes, {"templates": list(templates)})


__all__ = [
    "DEFAULT_TEMPLATES",
    "ClassificationResult",
    "check_templates",
    "class_embeddings",
    "classification_result",
    "evaluate_classification",
]
