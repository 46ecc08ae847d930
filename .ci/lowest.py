"""Print the lowest version of every package that pyproject.toml admits, one `name==version` a line for `pip -c`."""

import re
import tomllib
from pathlib import Path


def main() -> None:
    """Read the dependencies and extras, without torch."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest: dict[str, tuple[int, ...]] = {}
    for requirement in sum(project["optional-dependencies"].values(), project["dependencies"]):
        if not (match := re.match(r"([\w-]+)(?:\[\w+\])?[>=]=([\d.]+)", requirement)):
            continue  # this project with its own extras
        name, version = match.groups()
        lowest[name] = max(lowest.get(name, ()), tuple(map(int, version.split("."))))
    print(*(f"{name}=={'.'.join(map(str, version))}" for name, version in lowest.items() if name != "torch"), sep="\n")


if __name__ == "__main__":
    main()
