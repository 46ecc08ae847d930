"""Logistic regression on frozen features, with all examples or with a few of each class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
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


def _logistic_regression(c: float, max_iter: int) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ProbeDependencyError(
            "Probes are fitted by scikit-learn, which is not installed: pip install 'count-clip[probe]'."
        ) from error
    return LogisticRegression(C=c, max_iter=max_iter, solver="lbfgs")


@dataclass(frozen=True)
class Probe:
    """A fitted classifier."""

    classifier: Any
    """scikit-learn's `LogisticRegression`."""
    num_classes: int
    """All classes, of which it may have seen fewer."""

    @property
    def converged(self) -> bool:
        """Whether L-BFGS came to an end before its last iteration."""
        return bool(self.classifier.n_iter_.max() < self.classifier.max_iter)

    def scores(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """
        Log probabilities of the classes.

        Args:
            vectors (array of shape `(N, width)`): Features.

        Returns:
            `np.ndarray` of shape `(N, num_classes)`; a class of which there was no example is less likely than any.
        """
        # Not `predict_log_proba`, which takes the logarithm of probabilities that have become zero.
        logits = self.classifier.decision_function(np.asarray(vectors, dtype=np.float64))
        if logits.ndim == 1:  # of two classes scikit-learn gives one number
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        known = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scores = np.full((len(known), self.num_classes), known.min() - 1)
        scores[:, self.classifier.classes_] = known
        return scores

    def accuracy(self, features: Features) -> float:
        """Part of the rows that it gets right."""
        return float((self.scores(features.vectors).argmax(axis=1) == features.labels).mean())


def fit_probe(features: Features, num_classes: int, c: float, max_iter: int = MAX_ITER) -> Probe:
    """
    Fit a logistic regression by L-BFGS.

    Args:
        features ([`Features`]): Of the training rows.
        num_classes (`int`): All classes.
        c (`float`): One over the weight of the L2 penalty: small values regularise more.
        max_iter (`int`, *optional*, defaults to 1000): Iterations at most, as in CLIP's appendix.

    Returns:
        [`Probe`]: The classifier.

    Raises:
        ValueError: If the rows are of fewer than two classes.
        ProbeDependencyError: If scikit-learn is not installed.
    """
    present = np.unique(features.labels)
    if len(present) < 2:
        raise ValueError(f"Expected training rows of at least two classes, but got rows of {len(present)}.")
    classifier = _logistic_regression(c, max_iter)
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `Probe.converged` says it
        # With one example of each class it takes the classes for measured values.
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        classifier.fit(features.vectors.astype(np.float64), features.labels)
    return Probe(classifier, num_classes)


def choose_c(
    train: Features, validation: Features, num_classes: int, max_iter: int = MAX_ITER, progress: bool = False
) -> tuple[float, dict[float, float]]:
    """
    Choose how much to regularise, on validation rows, as CLIP's authors do.

    First every second decade from 1e-6 to 1e6 is tried; then the interval around the best value is halved until the
    steps are an eighth of a decade.

    Args:
        train ([`Features`]): Of the rows to fit.
        validation ([`Features`]): Of the rows to choose on.
        num_classes (`int`): All classes.
        max_iter (`int`, *optional*, defaults to 1000): Iterations at most.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar on stderr.

    Returns:
        `tuple[float, dict[float, float]]`: The best value of `C`, of equally good ones the smallest; and the
        validation accuracy of each that was tried.

    Raises:
        ValueError: If the training rows are of fewer than two classes.
        ProbeDependencyError: If scikit-learn is not installed.

    Source:
        Radford et al., CLIP, 2021, Appendix A.3 (https://arxiv.org/abs/2103.00020).
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
    """
    Set a part of the rows aside, of each class the same share.

    Args:
        features ([`Features`]): The rows.
        share (`float`): How much of each class, between 0 and 1; of a class with several rows at least one.
        seed (`int`, *optional*, defaults to 0): Where the draw starts.

    Returns:
        `tuple[Features, Features]`: The rows that stay, and those set aside.

    Raises:
        ValueError: If no class has two rows.
    """
    generator = np.random.default_rng(seed)
    aside: list[int] = []
    for label in np.unique(features.labels):
        places = generator.permutation(np.flatnonzero(features.labels == label))
        number = min(max(1, round(share * len(places))), len(places) - 1)
        aside.extend(places[:number].tolist())
    if not aside:
        raise ValueError("Expected at least two training rows of some class, to choose on one, but got one of each.")
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

    Args:
        train ([`Features`]): Of the training rows.
        validation ([`Features`], *optional*): Of the validation rows; a fifth of the training rows by default.
        test ([`Features`]): Of the test rows.
        names (`Sequence[str]`): The classes.
        seed (`int`, *optional*, defaults to 0): Where the draw of validation rows starts.
        max_iter (`int`, *optional*, defaults to 1000): Iterations of L-BFGS at most.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar on stderr.

    Returns:
        [`ClassificationResult`]: The figures on the test rows. `about` has `c`, `sweep` (validation accuracies),
        `converged` and the numbers of rows. `skipped` are test rows; `train_skipped` says how many rows of the other
        parts were.

    Raises:
        ValueError: If there are too few rows to fit.
        ProbeDependencyError: If scikit-learn is not installed.

    Source:
        Radford et al., CLIP, 2021, Appendix A.3 (https://arxiv.org/abs/2103.00020).
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
    """What probes reached that had seen so many examples of each class."""

    shots: int
    """Examples of each class."""
    accuracies: list[float]
    """On the test rows, one for each draw of examples."""
    cs: list[float]
    """What `C` was chosen for each."""
    rows: list[int]
    """Examples that each had in all: fewer than shots times classes where a class has fewer."""

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float | None:
        """Standard deviation among the draws (of a sample); `None` of one draw."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class FewShotResult:
    """How accuracy grows with the number of examples."""

    points: list[FewShotPoint]
    """In the order of the shots."""
    zero_shot: float | None
    """Accuracy of zero-shot classification on the same rows, where it was measured."""
    names: list[str]
    """The classes."""
    n: int
    """Test rows."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Test rows that could not be measured."""
    train_skipped: int = 0
    """Rows of the other parts that could not be."""
    correct: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """For each number of shots, `(N,)`: of each test row the part of the draws that got it right."""

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the test rows, for the same draws of examples."""
        return {
            f"shots_{shots}": bootstrap_interval(lambda right: float(right.mean()), right)
            for shots, right in self.correct.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return {
            "n": self.n,
            "names": self.names,
            "zero_shot": self.zero_shot,
            "train_skipped": self.train_skipped,
            "curve": [
                {
                    "shots": point.shots,
                    "mean": point.mean,
                    "std": point.std,
                    "accuracies": point.accuracies,
                    "c": point.cs,
                    "rows": point.rows,
                }
                for point in self.points
            ],
            "skipped": [{"index": row.index, "image_id": row.image_id, "reason": row.reason} for row in self.skipped],
        }


def draw_shots(features: Features, shots: int, generator: np.random.Generator) -> tuple[list[int], list[int]]:
    """
    Draw examples of each class.

    Args:
        features ([`Features`]): The rows.
        shots (`int`): Examples of each class; of a class with fewer rows, all.
        generator (`np.random.Generator`): Draws.

    Returns:
        `tuple[list[int], list[int]]`: The places of the examples, and those of the other rows.
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
    Measure linear probes that have seen a few examples of each class.

    `C` is chosen on validation rows, no more of each class than examples and no more than four; the probe sees the
    examples alone.

    Args:
        train ([`Features`]): Of the rows to draw examples from.
        validation ([`Features`], *optional*): Of the rows to choose on; training rows that are no examples by default.
        test ([`Features`]): Of the test rows.
        names (`Sequence[str]`): The classes.
        shots (`Sequence[int]`, *optional*, defaults to `(1, 2, 4, 8, 16)`): How many examples of each class.
        num_draws (`int`, *optional*, defaults to 3): How often to draw.
        seed (`int`, *optional*, defaults to 0): Where the draws start; examples of a larger number hold those of a
            smaller one of the same draw.
        zero_shot (`float`, *optional*): Accuracy without examples, to be put beside.
        max_iter (`int`, *optional*, defaults to 1000): Iterations of L-BFGS at most.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar on stderr.

    Returns:
        [`FewShotResult`]: The curve.

    Raises:
        ValueError: If an option is out of its range, or there are too few rows.
        ProbeDependencyError: If scikit-learn is not installed.

    Source:
        Radford et al., CLIP, 2021, Sec. 3.1.5 (https://arxiv.org/abs/2103.00020); the size of the validation part is
        that of Zhou et al., CoOp, 2021, Sec. 4.1 (https://arxiv.org/abs/2109.01134).
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
                    "rows. Ask for fewer, or give a validation part."
                )
            chosen, _ = draw_shots(pool, min(number, 4), np.random.default_rng([seed, draw, 1]))
            c, _ = choose_c(train.select(examples), pool.select(chosen), len(names), max_iter, progress)
            probe = fit_probe(train.select(examples), len(names), c, max_iter)
            said = probe.scores(test.vectors).argmax(axis=1)
            right += (said == test.labels) / num_draws
            accuracies.append(float((said == test.labels).mean()))
            cs.append(c)
            sizes.append(len(examples))
        points.append(FewShotPoint(number, accuracies, cs, sizes))
        correct[number] = right
    skipped = len(train.skipped) + (0 if validation is None else len(validation.skipped))
    return FewShotResult(points, zero_shot, list(names), len(test), test.skipped, skipped, correct)


@dataclass(frozen=True)
class ProbeParts:
    """The features of the parts of a data set."""

    train: Features
    validation: Features | None
    test: Features
    names: list[str]


def embed_parts(
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
) -> ProbeParts:
    """
    Encode the images of all parts of a labelled data set, once.

    Args:
        model ([`CLIPModel`]): Any CLIP, [`CLIPForCounting`] included.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): The model's processor.
        train, validation, test: Labelled data sets; `validation` may be `None`.
        label_column (`str`, *optional*, defaults to `"label"`): The column with the classes.
        image_column (`str`, *optional*, defaults to `"image"`): The column with the images.
        names (`Sequence[str]`, *optional*): What the classes are called; as the training part says it by default.
        projected (`bool`, *optional*, defaults to `False`): Whether to take the unit-norm embeddings that the model
            compares with texts; by default what the vision tower gives before its projection, as CLIP's authors do.
        batch_size (`int`, *optional*, defaults to 32): Images at once.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.

    Returns:
        [`ProbeParts`]: The features of each part.

    Raises:
        ValueError: If the classes have no names, a part has no row that can be measured, or a feature is not finite.
        TypeError: If the model is no CLIP.
    """
    classes = class_names(train, label_column, names)
    with evaluating(model, device, dtype) as (where, precision):
        encoder = Encoder(model, processor, where, precision, batch_size)
        features = {
            what: embed_rows(encoder, rows, label_column, classes, image_column, projected, progress)
            for what, rows in (("train", train), ("validation", validation), ("test", test))
            if rows is not None
        }
    return ProbeParts(features["train"], features.get("validation"), features["test"], classes)


__all__ = [
    "SHOTS",
    "FewShotPoint",
    "FewShotResult",
    "Probe",
    "ProbeDependencyError",
    "ProbeParts",
    "choose_c",
    "draw_shots",
    "embed_parts",
    "few_shot_curve",
    "fit_probe",
    "linear_probe",
    "split_rows",
]
