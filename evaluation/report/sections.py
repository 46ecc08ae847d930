"""What the page says of each benchmark: tables, drawings and words, made of the results."""

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
    "linear-probe": "What do the features know? (linear probe)",
    "few-shot": "How much do a few examples teach?",
    "retrieval": "Are the right images found?",
    "relevance": "What makes the score?",
}
_EXPLAINED = {
    "countbench": "The number in a caption is replaced by each of two to ten, and the caption most similar to the "
    "image wins (CountBench's protocol). Guessing is right once in nine times.",
    "density": "The count of a density model beside the true one. MAE and RMSE are in objects; NAE and SRE divide by "
    "the true count and leave out images without objects.",
    "relevance": "How much of the relevance (arXiv 2103.15679) falls on the objects and on the number word, beside "
    "what an even spread would put there; “lift” is how many times as much it is.",
    "praco": "Images are asked for kinds of objects that are there and for kinds that are not, and mosaics of two "
    "images for what is in one of them (PrACo). A model that counts everything, whatever it is asked, does badly.",
}
_BASELINES = {
    "density": ("always the training mean", {"mae": "baseline_mae", "rmse": "baseline_rmse"}),
    "praco": ("counting all, whatever is asked", {}),
}
_DIRECTIONS = {"high": "more is better", "low": "less is better", "": ""}
_SKIPPED_SHOWN = 20


def results_section(
    results: Sequence[Result], labels: Mapping[str, str], problems: Sequence[tuple[str, str]]
) -> Section:
    """
    Say which files are on the page, and which could not be.

    Args:
        results (`Sequence[Result]`): What was read.
        labels (`Mapping[str, str]`): What each file's model is called on the page.
        problems (`Sequence[tuple[str, str]]`): Files that could not be reported, and why.

    Returns:
        [`Section`]: A table of them.
    """
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
    for file, reason in problems:
        blocks.append(Text(reason if file in reason else f"{file}: {reason}", warning=True))
    old = [result.file for result in results if not result.run]
    if old:
        blocks.append(
            Text(
                f"Written by an older version, without a record of the run: {', '.join(old)}. Which state of the data "
                "they are of is not known; they stand beside others whose true counts are the same.",
                warning=True,
            )
        )
    return Section("results", "Results", blocks)


def group_sections(
    groups: Sequence[Group], labels: Mapping[str, str], images: Mapping[str, Sequence[Cards | Text]]
) -> list[Section]:
    """
    Say what each group of comparable results shows.

    Args:
        groups (`Sequence[Group]`): The groups.
        labels (`Mapping[str, str]`): What each file's model is called on the page.
        images (`Mapping[str, Sequence[Cards | Text]]`): For each file, its best and worst images, or why there are
            none.

    Returns:
        `list[Section]`: One for each group.
    """
    sections = []
    for number, group in enumerate(groups):
        others = [other for other in groups if other.benchmark == group.benchmark and other is not group]
        title = TITLES[group.benchmark] + (f" – {describe_data(group.results[0])}" if others else "")
        blocks: list[Block] = [Text(f"Benchmark: {group.benchmark}. Data: {describe_data(group.results[0])}.")]
        if group.benchmark in _EXPLAINED:
            blocks.append(Text(_EXPLAINED[group.benchmark]))
        blocks += _apart(group, others)
        blocks += comparison_blocks(group, labels)
        blocks += _own_blocks(group, labels)
        for result in group.results:
            blocks += images.get(result.file, ())
        blocks += _skipped(group, labels)
        sections.append(Section(f"part-{number + 1}-{group.benchmark}", title, blocks))
    return sections


def _apart(group: Group, others: Sequence[Group]) -> Iterable[Block]:
    """Say why results of the same benchmark stand in other tables, and whether those here are of the same rows."""
    for other in others:
        reason = why_not_together(group.results[0], other.results[0])
        yield Text(
            f"Other results of this benchmark are of other data ({describe_data(other.results[0])}; {reason}) and "
            "stand in tables of their own: their figures cannot be compared with these.",
            warning=True,
        )
    prints = {result.data["fingerprint"] for result in group.results if result.data.get("fingerprint")}
    if len(prints) > 1:
        yield Text(
            "The fingerprints of the data differ between these results; the rows have the same true counts. That is "
            "so where the same data was loaded from another place."
        )
    if group.rows_differ:
        yield Text(
            "Not all of these results are of the same rows; those with fewer are marked as partial, and none of them "
            "is called the best. The differences further down are of the rows that both have.",
            warning=True,
        )


def comparison_blocks(group: Group, labels: Mapping[str, str]) -> list[Block]:
    """
    The figures side by side, and how far they differ on the same rows.

    Args:
        group ([`Group`]): Comparable results.
        labels (`Mapping[str, str]`): What each file's model is called on the page.

    Returns:
        `list[Block]`: One or two tables.
    """
    figures = [_figures(result) for result in group.results]
    names = list(dict.fromkeys(name for metrics, _ in figures for name in metrics if not name.startswith("baseline_")))
    title, reference = _reference(group, names, labels)
    header = ["measure", *(labels[result.file] for result in group.results), *([title] if reference else [])]
    rows = [_sizes(group, bool(reference))]
    for name in names:
        metric = metric_of(name)
        values = [metrics.get(name) for metrics, _ in figures]
        comparable = [
            value
            for value, result in zip(values, group.results, strict=True)
            if value is not None and group.is_whole(result)
        ]
        best = best_of(comparable, metric.best)
        cells = [Cell(metric.title, _DIRECTIONS[metric.best])]
        for value, (_, intervals), result in zip(values, figures, group.results, strict=True):
            interval = write_interval(intervals.get(name), metric.unit)
            is_best = value is not None and value == best and group.is_whole(result)
            deviation = _spread(result, name)
            interval = " · ".join(part for part in (interval, deviation) if part)
            cells.append(Cell(write_number(value, metric.unit), interval, best=is_best))
        if reference:
            value = reference.get(name)
            known = [other for other in values if other is not None]
            note = ""
            if value is not None and known and metric.best:
                beaten = value > max(known) if metric.best == "high" else value < min(known)
                note = "better than every model here" if beaten else ""
            cells.append(Cell(write_number(value, metric.unit), note))
        rows.append(cells)
    note = "Below a figure: its 95 % bootstrap interval, over the images."
    blocks: list[Block] = [Table("Figures side by side", header, rows, note)]
    if len(group.results) > 1 and group.results[0].counts:
        blocks.append(_differences(group, labels))
    return blocks


def _figures(result: Result) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """Figures and intervals as the file states them; intervals that it lacks are worked out of its rows."""
    intervals = dict(result.intervals)
    if result.benchmark != "praco":
        for name in FIGURES.get(result.benchmark, ()):
            if name not in intervals and result.metrics.get(name) is not None:
                intervals[name] = interval_of(result.counts, name)
    return dict(result.metrics), intervals


def _spread(result: Result, name: str) -> str:
    """How far the draws of few examples differ, where there were several."""
    curve = result.content.get("curve")
    for point in curve if isinstance(curve, list) else ():
        if isinstance(point, dict) and name == f"shots_{point.get('shots')}" and isinstance(point.get("std"), float):
            return f"draws ± {write_number(point['std'], 'part')}"
    return ""


def _reference(group: Group, names: Sequence[str], labels: Mapping[str, str]) -> tuple[str, dict[str, float | None]]:
    """What knows nothing, or does not read its prompt, reaches: what to call it, and its figures."""
    if group.benchmark == "countbench":
        return "guessing", {"accuracy": 1 / 9}
    title, stated = _BASELINES.get(group.benchmark, ("", {}))
    references = []
    for result in group.results:
        counts_all = result.content.get("counts_all")
        if group.benchmark == "praco" and isinstance(counts_all, dict):
            references.append((result, _flat(counts_all, names)))
        elif any(result.metrics.get(name) is not None for name in stated.values()):
            references.append((result, {name: result.metrics.get(baseline) for name, baseline in stated.items()}))
    if not references:
        return "", {}
    first, figures = references[0]
    # Measured on fewer rows, or with the mean of another training part, it is another for each result.
    differ = any(other != figures for _, other in references)
    return f"{title} (as in {labels[first.file]})" if differ else title, figures


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
    """The row that says how much was measured."""
    cells = [Cell("images measured" if group.benchmark == "praco" else "rows measured")]
    for result in group.results:
        note = f"partial: {result.missing} missing" if result.missing else "partial" if result.limited else ""
        cells.append(Cell(NOTHING if result.measured is None else str(result.measured), note))
    return [*cells, *([Cell("")] if reference else [])]


def _differences(group: Group, labels: Mapping[str, str]) -> Table:
    """How far the other results are from the first one, on the same rows."""
    first, *others = group.results
    rows = []
    for other in others:
        for found in paired_differences(first, other):
            metric = metric_of(found.metric)
            verdict = "not told apart"
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
        f"Differences from {labels[first.file]}, on the rows that both answered",
        ["model", "measure", "difference", "95 % interval", "verdict", "rows"],
        rows,
        "Paired bootstrap: images are drawn with the answers of both models. “Not told apart” means that the "
        "interval holds 0; with many comparisons, one in twenty is told apart by chance.",
        names=True,
        words=(1, 4),
    )


def _own_blocks(group: Group, labels: Mapping[str, str]) -> Iterable[Block]:
    """What only this benchmark has."""
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


def _skipped(group: Group, labels: Mapping[str, str]) -> Iterable[Block]:
    """The rows that are in no figure."""
    for result in group.results:
        if not result.skipped:
            continue
        rows = [
            [
                Cell(str(row.get("index", NOTHING))),
                Cell(str(row.get("image_id") or NOTHING)),
                Cell(str(row.get("reason", ""))),
            ]
            for row in result.skipped[:_SKIPPED_SHOWN]
        ]
        more = len(result.skipped) - len(rows)
        yield Table(
            f"{labels[result.file]}: rows that could not be measured ({len(result.skipped)})",
            ["row", "image", "why"],
            rows,
            f"And {more} more, which are in {result.file}." if more > 0 else "",
            closed=True,
            words=(1, 2),
        )


def repeat_section(results: Sequence[Result], labels: Mapping[str, str]) -> Section:
    """
    Say how each result can be measured once more.

    Args:
        results (`Sequence[Result]`): What was read.
        labels (`Mapping[str, str]`): What each file's model is called on the page.

    Returns:
        [`Section`]: For each file its command, and the versions and revisions that it was measured with.
    """
    blocks: list[Block] = []
    for result in results:
        run = result.run
        model = result.model_record
        data = result.data
        versions = run.get("versions") or result.content.get("versions") or {}
        facts = {
            "file": result.file,
            "checksum of the file (SHA-256)": result.sha256,
            "measured": run.get("created"),
            "model": result.model,
            "model revision": model.get("revision"),
            "checksum of the weights (SHA-256)": model.get("sha256"),
            "model type": model.get("model_type"),
            "parameters": model.get("parameters"),
            "data": data.get("name"),
            "configuration": data.get("config"),
            "split": data.get("split"),
            "data revision": data.get("revision"),
            "data fingerprint": data.get("fingerprint"),
            "rows": data.get("rows"),
            "seed": run.get("seed", data.get("seed")),
            "computed in": run.get("dtype", result.content.get("dtype")),
            "device": run.get("device"),
            "seconds": run.get("seconds"),
            "count-clip": run.get("count_clip"),
            **({str(name): version for name, version in versions.items()} if isinstance(versions, dict) else {}),
        }
        shown = [(name, str(value)) for name, value in facts.items() if value is not None and not _nested(value)]
        command = run.get("command")
        remark = "" if command else "The file does not say with which command it was written."
        blocks.append(Facts(f"{labels[result.file]}, {result.benchmark}", shown, str(command or ""), remark))
    return Section("repeat", "How to repeat it", blocks)


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def labels_of(groups: Sequence[Group]) -> dict[str, str]:
    """
    Short names for the models, a different one for each file of a table.

    Args:
        groups (`Sequence[Group]`): The groups of results that stand in one table.

    Returns:
        `dict[str, str]`: For each file, as much of its model's name as is needed to tell it from the others, and the
        file's own name where that is not enough.
    """

    def tail(name: str, parts: int) -> str:
        return "/".join([part for part in re.split(r"[/\\]+", name) if part][-parts:]) or name

    models = dict.fromkeys(result.model for group in groups for result in group.results)
    short = {}
    for model in models:
        parts = 1
        while parts < 8 and any(tail(model, parts) == tail(other, parts) for other in models if other != model):
            parts += 1
        short[model] = tail(model, parts)
    labels = {}
    for result, others in ((result, group.results) for group in groups for result in group.results):
        twins = [other for other in others if other.model == result.model]
        stems = 1
        while len(twins) > 1 and stems < 8 and len({tail(twin.file, stems) for twin in twins}) < len(twins):
            stems += 1
        own = f" ({tail(result.file, stems)})" if len(twins) > 1 else ""
        labels[result.file] = short[result.model] + own
    return labels


__all__ = ["TITLES", "comparison_blocks", "group_sections", "labels_of", "repeat_section", "results_section"]
