"""
Makes `load_dataset("countscenes", "density")` find the data sets of this folder.

This file imports no more than the standard library, and `datasets` only once somebody else has: importing `count_clip`
must not wait for pyarrow and pandas.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any


# What `load_dataset` is to know by name, and the sibling module that holds the builder. All of these are made rather
# than read, so they need neither `data_dir` nor `data_files`.
RENDERED_DATASETS: dict[str, str] = {"countscenes": "countscenes"}


# The code that decides what is rendered.
_SOURCES = (
    "captions",
    "countscenes",
    "scene_backgrounds",
    "scene_config",
    "scene_layout",
    "scene_objects",
    "scene_plan",
    "schema",
)


def register_datasets() -> None:
    """
    Make `datasets.load_dataset` know the data sets of this folder by their names.

    Where `datasets` is not imported yet, this happens when it is. Calling it again changes nothing.
    """
    if "datasets.load" in sys.modules:
        _register(sys.modules["datasets.load"])
    elif not any(isinstance(finder, _WhenDatasetsIsImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenDatasetsIsImported())


def _register(load: ModuleType) -> None:
    """Enter the names in the registry of `datasets.load` (datasets 5.2; all that is used of it here is private)."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES, _hash_python_lines

    if all(name in _PACKAGED_DATASETS_MODULES for name in RENDERED_DATASETS):
        return
    for name, module in RENDERED_DATASETS.items():
        _PACKAGED_DATASETS_MODULES[name] = (f"{__package__}.{module}", _hash_python_lines(_source_lines()))

    # A registered name given without files makes `datasets` list the working directory for files to read, which fails
    # in an empty one and means nothing here, and tell a server that the name was asked for. An empty list of files is
    # the answer that `load_dataset` needs. Anything else, and any other name, goes the usual way.
    class PackagedDatasetModuleFactory(load.PackagedDatasetModuleFactory):  # type: ignore[name-defined]  # private
        def __init__(self, name: str, data_dir: Any = None, data_files: Any = None, **options: Any) -> None:
            self.is_rendered = name in RENDERED_DATASETS and data_dir is None and data_files is None
            self.name = name
            if not self.is_rendered:
                super().__init__(name, data_dir=data_dir, data_files=data_files, **options)

        def get_module(self) -> Any:
            if not self.is_rendered:
                return super().get_module()
            module_path, code_hash = _PACKAGED_DATASETS_MODULES[self.name]
            builder_kwargs = {"data_files": load.DataFilesDict(), "dataset_name": self.name}
            return load.DatasetModule(module_path, code_hash, builder_kwargs)

    load.PackagedDatasetModuleFactory = PackagedDatasetModuleFactory  # type: ignore[attr-defined]  # private


def _source_lines() -> list[str]:
    """Read the code that renders: its hash is part of the cache's path, so new code renders anew."""
    lines = []
    for module in _SOURCES:
        spec = importlib.util.find_spec(f"{__package__}.{module}")
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            continue  # without sources (a frozen program) there is nothing that could have changed
        lines += spec.loader.get_data(spec.loader.path).decode("utf-8").splitlines()
    return lines


class _WhenDatasetsIsImported(importlib.abc.MetaPathFinder):
    """Registers right after the first import of `datasets`, then takes itself away."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find `datasets` as it would be found without this, and add the registration to its loading."""
        if fullname != "datasets":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                # Some only ask whether there is `datasets`; it counts when the module is executed. (setattr,
                # because type checkers do not let a method be assigned.)
                setattr(spec.loader, "exec_module", self._then_register(spec.loader.exec_module))  # noqa: B010
                return spec
        return None

    def _then_register(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        @wraps(execute)
        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register(sys.modules["datasets.load"])

        return execute_and_register
