"""
Measure what `import count_clip` costs beside `from transformers import CLIPModel`, in fresh processes.

The package alone is imported in no time, for transformers is told of its models when transformers is imported; so both
are imported here, and with them the models.

    python benchmarks/import_time.py [--runs 5]

Prints the best time of each and their ratio, and exits with 1 if the ratio is above the limit (1.5).
"""

import argparse
import subprocess
import sys


OURS = "import count_clip, transformers"
THEIRS = "from transformers import CLIPModel"
LIMIT = 1.5


def import_seconds(statement: str) -> float:
    """
    Time one import in a process of its own.

    Args:
        statement (`str`):
            The import statement.

    Returns:
        `float`: Seconds that the statement took, without the start of the interpreter.
    """
    program = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(finished.stdout.split()[-1])


def best_seconds(runs: int) -> tuple[float, float]:
    """
    Time both imports in turns, so that whatever else the machine does meets both.

    Args:
        runs (`int`):
            How often each is imported, after one round that fills the caches.

    Returns:
        `tuple[float, float]`: The best time of ours and of theirs, in seconds.
    """
    import_seconds(THEIRS), import_seconds(OURS)
    pairs = [(import_seconds(OURS), import_seconds(THEIRS)) for _ in range(runs)]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    return ours, theirs


def main() -> int:
    """Print both times and the ratio."""
    parser = argparse.ArgumentParser(description="Measure what `import count_clip` costs.")
    parser.add_argument("--runs", type=int, default=5, help="how often each is imported (default: 5)")
    ours, theirs = best_seconds(parser.parse_args().runs)
    print(f"{OURS}: {ours:.2f} s")
    print(f"{THEIRS}: {theirs:.2f} s")
    print(f"ratio: {ours / theirs:.2f} (limit {LIMIT})")
    return int(ours / theirs > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
