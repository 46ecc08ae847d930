"""What is said of a list that was fetched: what was counted, and the card."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .fetch_config import FetchConfig
from .fetch_lists import AddressList
from .fetch_shards import fetched_features
from .hub_card import HubConfig, columns_table, front_matter, one_split


_COLUMNS = {
    "image_id": "its place in the list",
    "url": "its address",
    "sha256": "of its file",
    "width": "pixels, as they are stored",
    "height": "likewise",
}


@dataclass
class FetchCounts:
    """
    What was counted.

    Args:
        rows (`int`): Rows of the list that are done.
        fetched (`int`): Pictures that there are.
        bytes (`int`): Their size.
        attempts (`int`): How often servers were asked for something, but for redirects.
        reasons (`Counter[str]`): Why there is no picture.
        statuses (`Counter[str]`): What servers answered.
    """

    rows: int = 0
    fetched: int = 0
    bytes: int = 0
    attempts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """What json takes."""
        plain = {"rows": self.rows, "fetched": self.fetched, "bytes": self.bytes, "attempts": self.attempts}
        return {**plain, "reasons": dict(self.common_reasons()), "statuses": dict(sorted(self.statuses.items()))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FetchCounts":
        """What [`as_dict`] gave."""
        return cls(**{**values, "reasons": Counter(values["reasons"]), "statuses": Counter(values["statuses"])})

    def common_reasons(self) -> list[tuple[str, int]]:
        """Why pictures could not be had, the most common reason first."""
        return sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))

    def add(self, report: Mapping[str, Any]) -> None:
        """Add what a shard's report says."""
        self.rows += report["rows"]
        self.fetched += report["fetched"]
        self.bytes += report["bytes"]
        self.attempts += report["attempts"]
        self.reasons.update(report["reasons"])
        self.statuses.update(report["statuses"])

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Add what became of one address."""
        self.rows += 1
        self.attempts += record["attempts"]
        if "file" in record:
            self.fetched += 1
            self.bytes += record["bytes"]
        else:
            self.reasons[record["reason"]] += 1
        if record.get("status") is not None:
            self.statuses[str(record["status"])] += 1


@dataclass(frozen=True)
class FetchReport:
    """
    A list that was fetched.

    Args:
        output (`Path`): The folder.
        counts ([`FetchCounts`]): What was counted.
        seconds (`float`): How long it took, of all programs that worked on it.
        is_new (`bool`): Whether there was anything left to do.
    """

    output: Path
    counts: FetchCounts
    seconds: float
    is_new: bool = True

    @property
    def num_failures(self) -> int:
        """`int`: How many pictures could not be had."""
        return self.counts.rows - self.counts.fetched


def fetched_card(addresses: AddressList, config: FetchConfig, layout: str, counts: FetchCounts, content: str) -> str:
    """
    Write the card of a fetched set.

    Args:
        addresses (`AddressList`): The list.
        config ([`FetchConfig`]): How it was fetched.
        layout (`str`): As what.
        counts (`FetchCounts`): What became of it.
        content (`str`): A hash of the pictures.

    Returns:
        `str`: The content of `README.md`.
    """
    features = fetched_features(addresses.features)
    lost = "\n".join(f"- {reason}: {number:,}" for reason, number in counts.common_reasons())
    body = [
        f"{counts.fetched:,} pictures ({counts.bytes / 1e6:,.1f} MB) of the {counts.rows:,} addresses in "
        f"`{addresses.path.name}` (sha256 `{addresses.fingerprint}`).",
        "## How it was made",
        f"By `count-clip data fetch {addresses.path.name}`. Every picture was decoded once, and is its server's file, "
        f"byte for byte. None has more than {config.max_bytes:,} bytes or {config.max_pixels:,} pixels; none whose "
        f"server said {', '.join(config.opt_outs) or 'anything'} in `X-Robots-Tag` was kept.",
        "## Columns",
        columns_table(list(features), _COLUMNS),
        "## Known faults",
        f"What could not be had is in `failures.jsonl`, with the reasons:\n\n{lost}"
        if lost
        else "Nothing is missing.",
        "Addresses come to lead elsewhere: a picture need not be the one that the list was made with.",
        "## Licence",
        "The pictures are their owners'.",
    ]
    pattern = {"parquet": "data/*.parquet", "folder": "pictures/**"}[layout]
    info = one_split(features, counts.fetched, counts.bytes)
    hub_config = HubConfig("default", info, {"train": pattern}, f"Content {content[:16]}.")
    header = front_matter("Fetched pictures", [hub_config], None, ("count-clip",))
    return "\n\n".join([header, "# Fetched pictures", *body]) + "\n"
