import os
import subprocess
import sys
from pathlib import Path

import pytest

from count_clip.datasets_scripts import registration


LAZY = """
import importlib.util, sys
from count_clip.datasets_scripts.registration import register_datasets
register_datasets()
register_datasets()
# Asking whether there is `datasets`, as transformers does, is not importing it.
assert importlib.util.find_spec("datasets") is not None
assert "datasets" not in sys.modules, "registering imported datasets"
finders = len(sys.meta_path)
import datasets
assert len(sys.meta_path) == finders - 1, "the finder stayed"
assert "count_clip.datasets_scripts.countscenes.builder" not in sys.modules
"""

EAGER = """
import datasets
from count_clip.datasets_scripts.registration import register_datasets
register_datasets()
"""

LOAD = """
import datasets
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
before = dict(_PACKAGED_DATASETS_MODULES), datasets.load.PackagedDatasetModuleFactory
register_datasets()
assert before == (_PACKAGED_DATASETS_MODULES, datasets.load.PackagedDatasetModuleFactory), "registered twice"

options = {"num_scenes": {"train": 4, "test": 2}, "image_size": 64, "objects": "shapes"}
density = datasets.load_dataset("countscenes", "density", **options)
assert {split: len(rows) for split, rows in density.items()} == {"train": 4, "test": 2}
assert density["train"][0]["image"].size == (64, 64)
assert len(density["test"][0]["points"]) == density["test"][0]["count"]

again = datasets.load_dataset("countscenes", "density", seed=1, **options)
assert again["train"][0]["points"] != density["train"][0]["points"]

default = datasets.load_dataset("countscenes", split="test", streaming=True, objects="shapes")
assert next(iter(default))["image_id"] == "density-test-0-000000"
assert datasets.get_dataset_config_names("countscenes") == [
    *("captions", "density", "mixed", "benchmark", "plain", "described")
]
try:
    datasets.load_dataset("countscenes", "densty")
except ValueError as error:
    assert "densty" in str(error) and "density" in str(error)
else:
    raise AssertionError("an unknown configuration was loaded")

# Other registered names work as before.
import json, pathlib
pathlib.Path("rows.json").write_text(json.dumps({"a": 1}))
assert datasets.load_dataset("json", data_files="rows.json", split="train")[0] == {"a": 1}
print("done")
"""


@pytest.mark.parametrize("beginning", [LAZY, EAGER], ids=["before datasets", "after datasets"])
def test_load_dataset_finds_countscenes_from_an_empty_folder(beginning: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", beginning + LOAD],
        capture_output=True,
        text=True,
        cwd=empty,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith("done\n")


# The package itself imports the models; a stand-in with its search path lets this file be imported alone.
ALONE = """
import importlib.util, sys, types
package = types.ModuleType("count_clip")
package.__path__ = list(importlib.util.find_spec("count_clip").submodule_search_locations)
sys.modules["count_clip"] = package
from count_clip.datasets_scripts.registration import register_datasets
register_datasets()
print(sorted(name for name in ("datasets", "numpy", "PIL", "pyarrow", "pandas") if name in sys.modules))
"""


def test_registering_needs_nothing_but_the_standard_library() -> None:
    printed = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_cache_is_named_after_the_code_and_the_tables_of_a_builder() -> None:
    lines = registration._source_lines("countscenes.builder")
    assert "class CountScenesBuilder(CardBuilder):" in lines
    assert any(line.startswith("animals,orange cat,1F408,cat,") for line in lines)
