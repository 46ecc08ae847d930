"""Logistic regression on frozen features, with all examples or a few of each class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray

from ..functional import bootstrap_interval
from ..inference.encoding import Encoder, SkippedRow, evaluating
from .classification import ClassificationResult, classification_result
from .labelled import Features, class_names, embed_rows


# The grid of the sweep, in steps of an eighth of a decade from 1e-6 to 1e6.
_STEPS_PER_DECADE = 8
_LAST_STEP = 6 * _STEPS_PER_DECADE
_FIRST_STRIDE = 2 * _STEPS_PER_DECADE

SHOTS = (1, 2, 4, 8, 16)
MAX_ITER = 1000


class ProbeDependencyError(ImportError):
    """scikit-learn is not installed."""


@dataclass(frozen=True)
class Probe:
    """A fitted classifier."""

    classifier: Any
    """scikit-learn's `LogisticRegression`."""
    num_classes: int
    """All classes; the examples may have fewer."""

    @property
    def converged(self) -> bool:
        """Whether L-BFGS converged."""
        return bool(self.classifier.n_iter_.max() < self.classifier.max_iter)

    def scores(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """
        Log probabilities `(N, num_classes)` of features `(N, width)`; a class without an example gets the lowest
        score.
        """
        # `predict_log_proba` takes the logarithm of probabilities that underflow.
        logits = self.classifier.decision_function(np.asarray(vectors, dtype=np.float64))
        if logits.ndim == 1:  # scikit-learn's score of two classes
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        known = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scores = np.full((len(known), self.num_classes), known.min() - 1)
        scores[:, self.classifier.classes_] = known
        return scores

    def accuracy(self, features: Features) -> float:
        """Share of the rows that it classifies right."""
        return float((self.scores(features.vectors).argmax(axis=1) == features.labels).mean())


def fit_probe(features: Features, num_classes: int, c: float, max_iter: int = MAX_ITER) -> Probe:
    """
    Fit a logistic regression by L-BFGS; small values of `c`, one over the weight of the L2 penalty, regularise more.
    """
    present = np.unique(features.labels)
    if len(present) < 2:
        raise ValueError(f"Expected training rows of at least two classes, but got rows of {len(present)}.")
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ProbeDependencyError(
            "Probes need scikit-learn, which is not installed: pip install 'count-clip[probe]'."
        ) from error
    classifier = LogisticRegression(C=c, max_iter=max_iter, solver="lbfgs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # see `Probe.converged`
        # A warning about one example of each class.
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        classifier.fit(features.vectors.astype(np.float64), features.labels)
    return Probe(classifier, num_classes)


def choose_c(
    train: Features, validation: Features, num_classes: int, max_iter: int = MAX_ITER, progress: bool = False
) -> tuple[float, dict[float, float]]:
    """
    Choose `C` on validation rows; returns the best value (of equal ones the smallest) and the accuracies of all.

    First every second decade from 1e-6 to 1e6 is tried; then the interval around the best value is halved down to
    steps of an eighth of a decade (Radford et al., CLIP, 2021, Appendix A.3, https://arxiv.org/abs/2103.00020).
    """
    tried: dict[int, float] = {}
    bar = tqdm(desc="sweep", unit="fit", disable=not progress, leave=False)

    def try_step(step: int) -> None:
        if abs(step) <= _LAST_STEP and step not in tried:
            tried[step] = fit_probe(train, num_classes, _c_of(step), max_iter).accuracy(validation)
            bar.update()

    def best() -> int:
        return max(tried, key=lambda step: (tried[step], -step))

    for step in range(-_LAST_STEP, _LAST_STEP + 1, _FIRST_STRIDE):
        try_step(step)
    stride = _FIRST_STRIDE // 2
    while stride:
        middle = best()
        try_step(middle - stride)
        try_step(middle + stride)
        stride //= 2
    bar.close()
    return _c_of(best()), {_c_of(step): tried[step] for step in sorted(tried)}


def _c_of(step: int) -> float:
    """The value at a step of the grid."""
    return float(10 ** (step / _STEPS_PER_DECADE))


def split_rows(features: Features, share: float, seed: int = 0) -> tuple[Features, Features]:
    """Split off a share of the rows of each class, at least one of several; returns the remaining rows and those."""
    generator = np.random.default_rng(seed)
    aside: list[int] = []
    for label in np.unique(features.labels):
        places = generator.permutation(np.flatnonzero(features.labels == label))
        number = min(max(1, round(share * len(places))), len(places) - 1)
        aside.extend(places[:number].tolist())
    if not aside:
        raise ValueError("Expected at least two training rows of some class, one to choose on, but got one of each.")
    rest = np.setdiff1d(np.arange(len(features)), aside)
    return features.select(rest), features.select(sorted(aside))


def linear_probe(
    train: Features,
    validation: Features | None,
    test: Features,
    names: Sequence[str],
    seed: int = 0,
    max_iter: int = MAX_ITER,
    progress: bool = False,
) -> ClassificationResult:
    """
    Measure a linear probe: `C` chosen on validation rows, then fitted to training and validation rows together.

    Without `validation`, a fifth of the training rows is used. The result's `about` has `c`, `sweep` (validation
    accuracies), `converged` and the numbers of rows; `skipped` are test rows, `train_skipped` the number of the
    others. Raises a `ValueError` if there are too few rows, a `ProbeDependencyError` without scikit-learn.

    Source: Radford et al., CLIP, 2021, Appendix A.3 (https://arxiv.org/abs/2103.00020).
    """
    train_skipped = len(train.skipped) + (0 if validation is None else len(validation.skipped))
    from_train = validation is None
    if validation is None:
        train, validation = split_rows(train, 0.2, seed)
    c, sweep = choose_c(train, validation, len(names), max_iter, progress)
    probe = fit_probe(train.joined(validation), len(names), c, max_iter)
    about = {
        "c": c,
        "sweep": [[value, accuracy] for value, accuracy in sweep.items()],
        "converged": probe.converged,
        "max_iter": max_iter,
        "train_rows": len(train),
        "validation_rows": len(validation),
        "validation_from_train": from_train,
        "train_skipped": train_skipped,
    }
    return classification_result(probe.scores(test.vectors), test, names, about)


@dataclass(frozen=True)
class FewShotPoint:
    """Accuracy of probes with a number of examples of each class."""

    shots: int
    """Examples of each class."""
    accuracies: list[float]
    """Accuracy on the test rows for each draw of examples."""
    c: list[float]
    """The chosen `C` of each draw."""
    rows: list[int]
    """The number of examples of each draw; fewer than shots times classes if a class has fewer."""

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the draws; `None` for one draw."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy by number of examples."""

    points: list[FewShotPoint]
    """In the order of the shots."""
    zero_shot: float | None
    """Zero-shot accuracy on the same rows, if it was measured."""
    names: list[str]
    """The classes."""
    n: int
    """Test rows."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Test rows that could not be measured."""
    train_skipped: int = 0
    """Skipped rows of the other splits."""
    correct: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """For each number of shots, `(N,)`: the share of the draws that classify each test row right."""

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the test rows, for the same draws of examples."""
        return {f"shots_{shots}": bootstrap_interval(np.mean, right) for shots, right in self.correct.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return {
            "n": self.n,
            "names": self.names,
            "zero_shot": self.zero_shot,
            "train_skipped": self.train_skipped,
            "curve": [{**asdict(point), "mean": point.mean, "std": point.std} for point in self.points],
            "skipped": [asdict(row) for row in self.skipped],
        }


def draw_shots(features: Features, shots: int, generator: np.random.Generator) -> tuple[list[int], list[int]]:
    """
    Draw examples of each class (all of a class with fewer rows); returns their indices and those of the other rows.
    """
    drawn: list[int] = []
    for label in np.unique(features.labels):
        drawn.extend(generator.permutation(np.flatnonzero(features.labels == label))[:shots].tolist())
    return sorted(drawn), np.setdiff1d(np.arange(len(features)), drawn).tolist()


def few_shot_curve(
    train: Features,
    validation: Features | None,
    test: Features,
    names: Sequence[str],
    shots: Sequence[int] = SHOTS,
    num_draws: int = 3,
    seed: int = 0,
    zero_shot: float | None = None,
    max_iter: int = MAX_ITER,
    progress: bool = False,
) -> FewShotResult:
    """
    Measure linear probes with a few examples of each class; `zero_shot` is the accuracy without examples, for the
    result.

    `C` is chosen on validation rows (without `validation`, other training rows), of each class as many as examples and
    at most four; the probe is fitted to the examples only. Examples of a larger number include those of a smaller one
    of the same draw. Raises a `ValueError` if an option is out of its range, or there are too few rows, a
    `ProbeDependencyError` without scikit-learn.

    Source: Radford et al., CLIP, 2021, Sec. 3.1.5 (https://arxiv.org/abs/2103.00020); the size of the validation split
    is that of Zhou et al., CoOp, 2021, Sec. 4.1 (https://arxiv.org/abs/2109.01134).
    """
    wanted = list(dict.fromkeys(shots))
    if not wanted or min(wanted) < 1 or num_draws < 1:
        raise ValueError(f"Expected numbers of examples and of draws of at least 1, but got {wanted} and {num_draws}.")
    points = []
    correct = {}
    for number in tqdm(wanted, desc="shots", disable=not progress, leave=False):
        accuracies, cs, sizes, right = [], [], [], np.zeros(len(test))
        for draw in range(num_draws):
            examples, rest = draw_shots(train, number, np.random.default_rng([seed, draw]))
            pool = validation if validation is not None else train.select(rest)
            if not len(pool):
                raise ValueError(
                    f"Expected rows to choose on, but {number} examples of each class are all {len(train)} training "
                    "rows. Use fewer, or pass a validation split."
                )
            chosen, _ = draw_shots(pool, min(number, 4), np.random.default_rng([seed, draw, 1]))
            c, _ = choose_c(train.select(examples), pool.select(chosen), len(names), max_iter, progress)
            probe = fit_probe(train.select(examples), len(names), c, max_iter)
            predicted = probe.scores(test.vectors).argmax(axis=1)
            right += (predicted == test.labels) / num_draws
            accuracies.append(float((predicted == test.labels).mean()))
            cs.append(c)
            sizes.append(len(examples))
        points.append(FewShotPoint(number, accuracies, cs, sizes))
        correct[number] = right
    skipped = len(train.skipped) + (0 if validation is None else len(validation.skipped))
    return FewShotResult(points, zero_shot, list(names), len(test), test.skipped, skipped, correct)


@dataclass(frozen=True)
class ProbeSplits:
    """The features of the splits of a data set."""

    train: Features
    validation: Features | None
    test: Features
    names: list[str]


def embed_splits(
    model: Any,
    processor: Any,
    train: Any,
    validation: Any | None,
    test: Any,
    label_column: str = "label",
    image_column: str = "image",
    names: Sequence[str] | None = None,
    projected: bool = False,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> ProbeSplits:
    """
    Encode the images of all splits of a labelled data set.

    Args:
        train, validation, test: Labelled data sets; `validation` may be `None`.
        label_column (`str`, *optional*, defaults to `"label"`): The column with the classes.
        image_column (`str`, *optional*, defaults to `"image"`): The column with the images.
        names (`Sequence[str]`, *optional*): Names of the classes; by default those of the training split.
        projected (`bool`, *optional*, defaults to `False`): Whether to use the unit embeddings that are compared with
            texts instead of the vision tower's output before its projection, as CLIP's authors do.
        model, processor, batch_size, device, dtype, progress: As in [`evaluate_countbench`].

    Returns:
        [`ProbeSplits`]: The features of each split.

    Raises:
        ValueError: If the classes have no names, a split has no row that can be measured, or a feature is not finite.
        TypeError: If the model is not a CLIP.
    """
    classes = class_names(train, label_column, names)
    with evaluating(model, device, dtype) as (where, precision):
        encoder = Encoder(model, processor, where, precision, batch_size)
        features = {
            what: embed_rows(encoder, rows, label_column, classes, image_column, projected, progress)
            for what, rows in (("train", train), ("validation", validation), ("test", test))
            if rows is not None
        }
    return ProbeSplits(features["train"], features.get("validation"), features["test"], classes)


__all__ = [
    "SHOTS",
    "FewShotPoint",
    "FewShotResult",
    "Probe",
    "ProbeDependencyError",
    "ProbeSplits",
    "choose_c",
    "draw_shots",
    "embed_splits",
    "few_shot_curve",
    "fit_probe",
    "linear_probe",
    "split_rows",
]
