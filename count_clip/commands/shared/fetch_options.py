"""The options of the commands that fetch images from the web. Only the standard library."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .options import positive, seconds


if TYPE_CHECKING:
    from count_clip.datasets_scripts.download.config import FetchConfig


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    """How to fetch."""
    group = parser.add_argument_group("fetching")
    group.add_argument(
        "--connections", type=positive, default=16, metavar="N", help="addresses that are asked at once (default: 16)"
    )
    group.add_argument(
        "--per-host", type=positive, default=4, metavar="N", help="of these, at most of one server (default: 4)"
    )
    group.add_argument(
        "--host-delay", type=seconds, default=0.1, metavar="S", help="between questions to one server (default: 0.1)"
    )
    group.add_argument(
        "--connect-timeout", type=seconds, default=10.0, metavar="S", help="a connection may take (default: 10)"
    )
    group.add_argument(
        "--timeout", type=seconds, default=20.0, metavar="S", help="a server may be silent (default: 20)"
    )
    group.add_argument(
        "--total-timeout", type=seconds, default=120.0, metavar="S", help="a try may take in all (default: 120)"
    )
    group.add_argument(
        "--retries", type=int, default=2, metavar="N", help="further tries of what failed in passing (default: 2)"
    )
    group.add_argument("--max-mb", type=positive, default=50, metavar="MB", help="of an image's file (default: 50)")
    group.add_argument("--max-megapixels", type=positive, default=89, metavar="MP", help="of an image (default: 89)")
    group.add_argument("--max-redirects", type=int, default=5, metavar="N", help="of an address (default: 5)")
    group.add_argument(
        "--allow-private",
        action="store_true",
        help="also ask addresses of this machine and its own network, which a list from the web has no business with",
    )
    group.add_argument(
        "--ignore-opt-outs",
        action="store_true",
        help="keep images whose servers say noai, noimageai, noindex or noimageindex in X-Robots-Tag",
    )
    group.add_argument(
        "--user-agent", metavar="TEXT", help="what to call oneself (default: count-clip, and how to opt out)"
    )


def fetch_config(options: argparse.Namespace) -> FetchConfig:
    """What these options say."""
    from count_clip.datasets_scripts.download.config import OPT_OUTS, FetchConfig

    return FetchConfig(
        num_connections=options.connections,
        connections_per_host=options.per_host,
        host_delay=options.host_delay,
        connect_timeout=options.connect_timeout,
        read_timeout=options.timeout,
        total_timeout=options.total_timeout,
        retries=options.retries,
        max_bytes=options.max_mb * 2**20,
        max_pixels=options.max_megapixels * 10**6,
        max_redirects=options.max_redirects,
        allow_private=options.allow_private,
        opt_outs=() if options.ignore_opt_outs else OPT_OUTS,
        user_agent=options.user_agent,
    )


__all__ = ["add_fetch_options", "fetch_config"]
