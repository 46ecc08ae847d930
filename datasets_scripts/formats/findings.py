"""What is unusual about a source: counted, with examples, for logs, descriptions and cards."""

from collections.abc import Sequence


class Findings:
    """Unusual properties of a source, each with the places where it was found, in the order of discovery."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._left_out: set[str] = set()

    def add(self, what: str, place: str, left_out: bool = False) -> None:
        """
        Add a place of a finding, which is in the plural: "Points outside their image, moved to its edge".

        `left_out` states whether this removed something from the rows.
        """
        self._found.setdefault(what, []).append(place)
        if left_out:
            self._left_out.add(what)

    def extend(self, other: "Findings", prefix: str) -> None:
        """Add all findings of another source, their places with a prefix."""
        for what, places in other._found.items():
            for place in places:
                self.add(what, f"{prefix}{place}", left_out=what in other._left_out)

    def places(self, what: str) -> list[str]:
        """List the places of a finding."""
        return list(self._found.get(what, ()))

    @property
    def has_left_out(self) -> bool:
        """`bool`: Whether something is missing from the rows."""
        return bool(self._left_out)

    def lines(self, num_examples: int = 5, every_left_out: bool = True) -> list[str]:
        """
        Describe each finding in a line with `num_examples` places, or all where something was left out
        (`every_left_out`).
        """
        return [
            _line(what, places, None if every_left_out and what in self._left_out else num_examples)
            for what, places in self._found.items()
        ]

    def long_lines(self, num_examples: int = 5) -> list[str]:
        """Describe in full, a line each, what was left out at more than `num_examples` places."""
        return [
            _line(what, places, None)
            for what, places in self._found.items()
            if what in self._left_out and len(places) > num_examples
        ]


def _line(what: str, places: Sequence[str], limit: int | None) -> str:
    shown = places[:limit]
    rest = ", ..." if len(shown) < len(places) else ""
    return f"{what}: {len(places):,} ({', '.join(shown)}{rest})."
