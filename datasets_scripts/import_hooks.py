"""
Runs an action right after the import of another library, without importing it.

`import count_clip` registers itself with libraries that take seconds to import and that a program may never need
(`count-clip --help`). Only the standard library is imported here.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType


def after_import(modules: Sequence[str], action: Callable[[], None]) -> None:
    """
    Run an action now if one of these modules is imported already, or else after the first import of one.

    The action, which may import the other modules, is part of that import: it has run when the import returns, and its
    error is raised by the import. A second call with the same action, before it has run, changes nothing.
    """
    if any(name in sys.modules for name in modules):
        action()
    elif not any(isinstance(finder, _AfterImport) and finder.action is action for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(modules, action))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs the action right after the first import of one of its modules, and removes itself."""

    def __init__(self, modules: Sequence[str], action: Callable[[], None]) -> None:
        self.modules = frozenset(modules)
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as the other finders do, and add the action to its loading."""
        finders = list(sys.meta_path)
        if fullname not in self.modules or self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:  # Python has tried those before this one
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                # A search alone does not import a module; it counts when the module is executed. (setattr,
                # because type checkers do not let a method be assigned.)
                setattr(spec.loader, "exec_module", self._then_act(spec.loader.exec_module))  # noqa: B010
                return spec
        return None

    def _then_act(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        @wraps(execute)
        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            if self not in sys.meta_path:
                return
            sys.meta_path.remove(self)  # first, for the action may import the other modules
            try:
                self.action()
            except BaseException:  # also an interruption: the next attempt to import the module has to act again
                sys.meta_path.insert(0, self)
                raise

        return execute_and_act


__all__ = ["after_import"]
