"""Processes one shard of captions, in whatever process: text stages, images, detector, and the part on the disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..download.client import FetchConfig, HttpClient
from .detector import Detector, TransformersDetector
from .parts import PartFolder, PartReport
from .shards import CaptionRecord, CaptionShard, ShardError
from .stages import CaptionSetConfig, StageCounts, choose_by_image, choose_by_text


@dataclass(frozen=True)
class ShardWork:
    """
    Everything that a process needs to know about the shards: the folder of the parts, the options, and a detector in
    the place of the one that the configuration names.
    """

    parts: Path
    config: CaptionSetConfig
    downloads: FetchConfig = field(default_factory=FetchConfig)
    device: str | None = None
    detector: Detector | None = None

    def do(self, index: int, shard: CaptionShard) -> PartReport | str:
        """Take a shard through the stages and write its part; return its counts, or why it cannot be read."""
        counts = StageCounts()
        try:
            return self.finish(index, choose_by_text(shard, self.config, counts), counts)
        except ShardError as error:
            return str(error)

    def finish(self, index: int, records: Iterable[CaptionRecord], counts: StageCounts) -> PartReport:
        """Take captions that passed the text stages through those of the images, and write the part of their shard."""
        failures: list[dict[str, Any]] = []
        if not self.config.captions_only:
            records = fetch_images(records, self.downloads)
        rows = choose_by_image(records, self.config, self.find_detector(), counts, failures)
        return PartFolder(self.parts).write(index, rows, counts, failures)

    def find_detector(self) -> Detector | None:
        """The given detector, or the one of the configuration, which a process loads once."""
        if self.detector is not None or self.config.detector is None:
            return self.detector
        config = self.config
        return _load_detector(
            config.detector, config.threshold, self.device, config.batch_size, config.query, config.revision
        )


@lru_cache(maxsize=1)
def _load_detector(*options: Any) -> Detector:
    return TransformersDetector(*options)


def fetch_images(records: Iterable[CaptionRecord], config: FetchConfig) -> Iterator[CaptionRecord]:
    """
    Fetch the images of captions that have only a URL: the same captions in order, each with an image or a problem.
    """
    with HttpClient(config) as client:
        urls = ((record, record.url if record.image is None else None) for record in records)
        for record, result in client.in_order(urls):
            yield record if result is None else replace(record, image=result.content, problem=result.problem)
