"""
Registers the data sets of this package, for `load_dataset("fsc147", data_dir=...)`.

Only the standard library is imported here, and `datasets` after the user's own import of it: `import count_clip` must
not wait for pyarrow and pandas.
"""

import importlib.machinery
import importlib.util
import re
from pathlib import Path
from typing import Any

from .import_hooks import after_import


# Names for `load_dataset`, and the modules of the builders.
DATASETS: dict[str, str] = {
    "carpk": "builders.carpk",
    "countbench": "builders.countbench",
    "countscenes": "countscenes.builder",
    "fsc147": "builders.fsc147",
    "object_folder": "builders.object_folder",
    "shanghaitech": "builders.shanghaitech",
}

_RELATIVE_IMPORT = re.compile(r"^\s*from (\.+[\w.]*) import ", re.MULTILINE)


def register_datasets() -> None:
    """
    Register the data sets of this package with `datasets.load_dataset`.

    Where `datasets` is not imported yet, this happens after its import. Calling it again changes nothing.
    """
    after_import(["datasets"], _register)


def _register() -> None:
    """Enter the names in the registry of `datasets.load`, which is private (datasets 5.2)."""
    from datasets import load
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES, _hash_python_lines

    if all(name in _PACKAGED_DATASETS_MODULES for name in DATASETS):
        return
    for name, module in DATASETS.items():
        _PACKAGED_DATASETS_MODULES[name] = (f"{__package__}.{module}", _hash_python_lines(_source_lines(module)))

    # For a registered name `datasets` would list the files of `data_dir`, or of the working directory, and report the
    # name to a server. These builders find their files themselves, so their list is empty.
    class PackagedDatasetModuleFactory(load.PackagedDatasetModuleFactory):
        def __init__(self, name: str, data_dir: Any = None, data_files: Any = None, **options: Any) -> None:
            self.name = name
            if name not in DATASETS:
                super().__init__(name, data_dir=data_dir, data_files=data_files, **options)
            elif data_files is not None:
                raise ValueError(
                    f"Expected data_dir, the folder with the files of {name!r}, but got data_files={data_files!r}. "
                    "The builder looks for its files by the names that their authors gave them."
                )

        def get_module(self) -> Any:
            if self.name not in DATASETS:
                return super().get_module()
            module_path, code_hash = _PACKAGED_DATASETS_MODULES[self.name]
            builder_kwargs = {"data_files": load.DataFilesDict(), "dataset_name": self.name}
            return load.DatasetModule(module_path, code_hash, builder_kwargs)

    load.PackagedDatasetModuleFactory = PackagedDatasetModuleFactory


def _source_lines(module: str) -> list[str]:
    """The code of a builder and of its imports in this package; its hash names the cache, so new code rebuilds."""
    texts: dict[str, str] = {}
    waiting = [f"{__package__}.{module}"]
    while waiting:
        name = waiting.pop()
        spec = importlib.util.find_spec(name)
        if name in texts or spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            continue  # a frozen program has no sources, and they do not change
        texts[name] = spec.loader.get_data(spec.loader.path).decode("utf-8")
        # Tables that the code reads.
        for table in Path(spec.loader.path).parent.glob("*.csv"):
            texts.setdefault(f"{spec.parent}/{table.name}", table.read_text(encoding="utf-8"))
        waiting += [importlib.util.resolve_name(found, spec.parent) for found in _RELATIVE_IMPORT.findall(texts[name])]
    return [line for name in sorted(texts) for line in texts[name].splitlines()]
