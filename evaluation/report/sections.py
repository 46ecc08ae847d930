"""The sections of the page: tables, charts and text, made from the results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .blocks import Block, Cards, Cell, Facts, Section, Table, Text
from .count_blocks import (
    calibration_charts,
    confusion_tables,
    error_by_count,
    error_by_text,
    largest_errors,
    scatter_charts,
)
from .groups import FIGURES, Group, describe_data, interval_of, paired_differences, why_not_together
from .label_blocks import classification_blocks
from .metrics import NOTHING, best_of, metric_of, write_interval, write_number
from .results import Result


TITLES = {
    "countbench": "Which number does the caption state?",
    "density": "How many are there?",
    "praco": "Does the count follow the prompt?",
    "classification": "What is in the image?",
    "linear-probe": "How good are the features? (linear probe)",
    "few-shot": "How much do a few examples help?",
    "retrieval": "Are the right images found?",
    "relevance": "What determines the score?",
}
_EXPLAINED = {
    "countbench": "The number in a caption is replaced by each of two to ten, and the caption most similar to the "
    "image is the prediction (CountBench's protocol). Guessing is right in one of nine images.",
    "density": "Predicted counts against true counts. MAE and RMSE are in objects; NAE and SRE divide by the true "
    "count and leave out images without objects.",
    "relevance": "The share of the relevance (arXiv 2103.15679) on the objects and on the number word, next to that "
    "of evenly distributed relevance; “lift” is their ratio.",
    "praco": "Prompts for classes in the image and for absent classes, and mosaics of two images with a prompt for a "
    "class of one of them (PrACo). A model that counts all objects whatever the prompt gets bad figures.",
}
_DIRECTIONS = {"high": "more is better", "low": "less is better", "": ""}
_SKIPPED_SHOWN = 20

Labels = Mapping[str, str]
"""The name of each file's model on the page."""


def results_section(results: Sequence[Result], labels: Labels, problems: Sequence[tuple[str, str]]) -> Section:
    """A table of the files, and warnings about those that are not on the page: their names and reasons."""
    rows = []
    for result in results:
        state = "complete"
        if result.missing:
            state = f"partial: {result.missing} rows could not be measured"
        elif result.limited:
            state = "partial: a part of the data was measured"
        measured = NOTHING if result.measured is None else str(result.measured)
        cells = (labels[result.file], result.benchmark, describe_data(result), measured, state, result.file)
        rows.append([Cell(text) for text in cells])
    header = ["model", "benchmark", "data", "measured", "state", "file"]
    blocks: list[Block] = [Table("Results on this page", header, rows, names=True, words=(1, 2, 4, 5))]
    blocks += [Text(reason if file in reason else f"{file}: {reason}", warning=True) for file, reason in problems]
    return Section("results", "Results", blocks)


def group_sections(
    groups: Sequence[Group], labels: Labels, images: Mapping[str, Sequence[Cards | Text]]
) -> list[Section]:
    """A section for each group; `images` has the best and worst images of each file, or why there are none."""
    sections = []
    for number, group in enumerate(groups):
        others = [other for other in groups if other.benchmark == group.benchmark and other is not group]
        title = TITLES[group.benchmark] + (f" – {describe_data(group.results[0])}" if others else "")
        blocks: list[Block] = [Text(f"Benchmark: {group.benchmark}. Data: {describe_data(group.results[0])}.")]
        if group.benchmark in _EXPLAINED:
            blocks.append(Text(_EXPLAINED[group.benchmark]))
        blocks += _notes(group, others)
        blocks += _comparison(group, labels)
        blocks += _own_blocks(group, labels)
        for result in group.results:
            blocks += images.get(result.file, ())
        blocks += _skipped(group, labels)
        sections.append(Section(f"section-{number + 1}-{group.benchmark}", title, blocks))
    return sections


def _notes(group: Group, others: Sequence[Group]) -> Iterable[Block]:
    """Why results of the same benchmark are in other tables, and whether those here are of the same rows."""
    for other in others:
        reason = why_not_together(group.results[0], other.results[0])
        yield Text(
            f"Other results of this benchmark are of other data ({describe_data(other.results[0])}; {reason}) and "
            "have their own tables: their figures cannot be compared with these.",
            warning=True,
        )
    if len({str(result.data["fingerprint"]) for result in group.results if "fingerprint" in result.data}) > 1:
        yield Text(
            "The fingerprints of the data differ between these results; the rows have the same true counts. This "
            "happens if the same data was loaded from another folder."
        )
    if group.rows_differ:
        yield Text(
            "Not all of these results are of the same rows; those with fewer are marked as partial and never as the "
            "best. The differences below are of the rows that both have.",
            warning=True,
        )


def _comparison(group: Group, labels: Labels) -> Iterable[Block]:
    """The figures side by side, and their differences on the same rows."""
    intervals = [_intervals(result) for result in group.results]
    names = dict.fromkeys(name for result in group.results for name in result.metrics if name[:9] != "baseline_")
    title, reference = _reference(group, list(names), labels)
    header = ["measure", *(labels[result.file] for result in group.results), *([title] if reference else [])]
    rows = [_sizes(group, bool(reference))]
    for name in names:
        metric = metric_of(name)
        values = [result.metrics.get(name) for result in group.results]
        whole = [
            value if group.is_whole(result) else None for value, result in zip(values, group.results, strict=True)
        ]
        best = best_of(whole, metric.best)
        cells = [Cell(metric.title, _DIRECTIONS[metric.best])]
        for place, result in enumerate(group.results):
            notes = (write_interval(intervals[place].get(name), metric.unit), _deviation(result, name))
            is_best = best is not None and whole[place] == best
            cells.append(Cell(write_number(values[place], metric.unit), " · ".join(filter(None, notes)), is_best))
        if reference:
            value, others = reference.get(name), [other for other in values if other is not None]
            is_best = value is not None and bool(others) and best_of([value, *others], metric.best) == value
            is_best = is_best and value not in others
            cells.append(Cell(write_number(value, metric.unit), "better than every model here" if is_best else ""))
        rows.append(cells)
    yield Table("Figures side by side", header, rows, "Below a figure: its 95 % bootstrap interval over the images.")
    if len(group.results) > 1 and group.results[0].predictions:
        yield _differences(group, labels)


def _intervals(result: Result) -> dict[str, tuple[float, float]]:
    """The intervals of the file; those that it lacks are computed from its rows."""
    intervals = dict(result.intervals)
    for name in FIGURES.get(result.benchmark, ()):
        if name not in intervals and result.metrics.get(name) is not None:
            intervals[name] = interval_of(result.predictions, name)
    return intervals


def _deviation(result: Result, name: str) -> str:
    """The standard deviation over several draws of few examples."""
    curve = result.content.get("curve")
    for point in curve if isinstance(curve, list) else ():
        if isinstance(point, dict) and name == f"shots_{point.get('shots')}" and isinstance(point.get("std"), float):
            return f"draws ± {write_number(point['std'], 'share')}"
    return ""


def _reference(group: Group, names: Sequence[str], labels: Labels) -> tuple[str, dict[str, float | None]]:
    """Name and figures of a reference that ignores the image or the prompt."""
    if group.benchmark == "countbench":
        return "guessing", {"accuracy": 1 / 9}
    title, references = "", []
    for result in group.results:
        counts_all = result.content.get("counts_all")
        if group.benchmark == "praco" and isinstance(counts_all, dict):
            title = "counting all objects"
            references.append((result, _flat(counts_all, names)))
        elif group.benchmark == "density" and result.metrics.get("baseline_mae") is not None:
            title = "always the training mean"
            references.append((result, {name: result.metrics.get(f"baseline_{name}") for name in ("mae", "rmse")}))
    if not references:
        return "", {}
    first, figures = references[0]
    # Measured on fewer rows, or with the mean of another training split, each result has its own.
    differ = any(other != figures for _, other in references)
    return f"{title} (of {labels[first.file]})" if differ else title, figures


def _flat(figures: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """PrACo's figures by their flat names: `named_mae` is `figures["named"]["mae"]`."""
    found = {}
    for name in names:
        role, _, rest = name.partition("_")
        of_role = figures.get(role)
        value = of_role.get(rest) if rest and isinstance(of_role, dict) else figures.get(name)
        found[name] = value if isinstance(value, int | float) else None
    return found


def _sizes(group: Group, reference: bool) -> list[Cell]:
    """The row with the numbers of measured rows."""
    cells = [Cell("images measured" if group.benchmark == "praco" else "rows measured")]
    for result in group.results:
        note = f"partial: {result.missing} missing" if result.missing else "partial" if result.limited else ""
        cells.append(Cell(NOTHING if result.measured is None else str(result.measured), note))
    return [*cells, *([Cell("")] if reference else [])]


def _differences(group: Group, labels: Labels) -> Table:
    """Differences of the other results from the first one, on the same rows."""
    first, *others = group.results
    rows = []
    for other in others:
        for found in paired_differences(first, other):
            metric = metric_of(found.metric)
            verdict = "not significant"
            if found.low > 0 or found.high < 0:
                verdict = "more" if found.low > 0 else "less"
                if metric.best:
                    verdict = "better" if (found.low > 0) == (metric.best == "high") else "worse"
            rows.append(
                [
                    Cell(labels[other.file]),
                    Cell(metric.title),
                    Cell(write_number(found.difference, metric.unit, signed=True)),
                    Cell(write_interval((found.low, found.high), metric.unit, signed=True)),
                    Cell(verdict),
                    Cell(f"{found.rows}", f"{found.images} images" if found.images != found.rows else ""),
                ]
            )
    return Table(
        f"Differences from {labels[first.file]}, on the rows that both have",
        ["model", "measure", "difference", "95 % interval", "verdict", "rows"],
        rows,
        "Paired bootstrap: images are drawn with the predictions of both models. “Not significant” means that the "
        "interval holds 0; of many comparisons, one in twenty is significant by chance.",
        names=True,
        words=(1, 4),
    )


def _own_blocks(group: Group, labels: Labels) -> Iterable[Block]:
    """The blocks of one benchmark."""
    named = [(labels[result.file], result) for result in group.results]
    if group.benchmark == "countbench":
        yield from error_by_count(named, ("accuracy", "mean_deviation"))
        yield from confusion_tables(named)
        yield from calibration_charts(named)
        yield from error_by_text(named, "mean_deviation")
    elif group.benchmark in ("density", "praco"):
        yield from scatter_charts(named)
        yield from error_by_count(named, ("mae",))
        yield from error_by_text(named, "mae")
    else:
        yield from classification_blocks(named)
        return
    yield from largest_errors(named)


def _skipped(group: Group, labels: Labels) -> Iterable[Block]:
    """The rows that are in no figure."""
    for result in group.results:
        if not result.skipped:
            continue
        rows = [
            [Cell(NOTHING if row.get(key) is None else str(row[key])) for key in ("index", "image_id", "reason")]
            for row in result.skipped[:_SKIPPED_SHOWN]
        ]
        more = len(result.skipped) - len(rows)
        yield Table(
            f"{labels[result.file]}: rows that could not be measured ({len(result.skipped)})",
            ["row", "image", "reason"],
            rows,
            f"And {more} more, which are in {result.file}." if more > 0 else "",
            closed=True,
            words=(1, 2),
        )


def repeat_section(results: Sequence[Result], labels: Labels) -> Section:
    """For each file the command that repeats it, and the versions and revisions that it was measured with."""
    blocks: list[Block] = []
    for result in results:
        run = dict(result.run)
        facts = {
            "file": result.file,
            "SHA-256 of the file": result.sha256,
            **{f"model {name.replace('_', ' ')}": value for name, value in run.pop("model").items()},
            **{f"data {name}": value for name, value in run.pop("data").items()},
            **(versions if isinstance(versions := run.pop("versions", None), dict) else {}),
            **{name.replace("_", "-"): value for name, value in run.items() if name != "command"},
        }
        shown = [(name, str(value)) for name, value in facts.items() if not isinstance(value, dict | list | None)]
        title = f"{labels[result.file]}, {result.benchmark}"
        blocks.append(Facts(title, shown, str(result.run.get("command") or "The file has no command.")))
    return Section("repeat", "How to repeat it", blocks)


def labels_of(groups: Sequence[Group]) -> dict[str, str]:
    """
    Short names for the models by file, unique in each table: the shortest end of the model's path that identifies it,
    and if that is not enough the file's own name.
    """

    def tail(name: str, length: int) -> str:
        return "/".join([part for part in re.split(r"[/\\]+", name) if part][-length:]) or name

    def shortest(name: str, names: Iterable[str]) -> str:
        others = [other for other in names if other != name]
        unique = (n for n in range(1, 8) if all(tail(other, n) != tail(name, n) for other in others))
        return tail(name, next(unique, 8))

    models = {result.model for group in groups for result in group.results}
    labels = {}
    for group in groups:
        for result in group.results:
            twins = [other.file for other in group.results if other.model == result.model]
            own = f" ({shortest(result.file, twins)})" if len(twins) > 1 else ""
            labels[result.file] = shortest(result.model, models) + own
    return labels


__all__ = ["TITLES", "group_sections", "labels_of", "repeat_section", "results_section"]
