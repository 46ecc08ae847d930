"""An action waits for an import, once, and fails with it."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from count_clip.datasets_scripts.import_hooks import after_import


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Makes modules that can be imported; all of it is forgotten in the end."""
    monkeypatch.syspath_prepend(tmp_path)
    finders, names = list(sys.meta_path), []

    def make(*made: str) -> list[str]:
        for name in made:
            (tmp_path / f"{name}.py").write_text(f"name = {name!r}\n")
            names.append(name)
        importlib.invalidate_caches()
        return list(made)

    yield make
    sys.meta_path[:] = finders
    for name in names:
        sys.modules.pop(name, None)


def test_the_action_runs_once_after_the_first_import(modules: Callable[..., list[str]]) -> None:
    first, second = modules("hooked_a", "hooked_b")
    seen = []

    def act() -> None:
        seen.append((sys.modules[second].name, first in sys.modules))
        __import__(first)  # as a registration imports what it registers

    after_import([first, second], act)
    after_import([first, second], act)
    assert importlib.util.find_spec(first) is not None
    assert seen == []
    assert __import__(second).name == second
    assert seen == [(second, False)]
    assert __import__(first).name == first
    assert len(seen) == 1
    after_import([first], lambda: seen.append("at once"))
    assert seen[1:] == ["at once"]


def test_several_actions_may_wait_for_one_module(modules: Callable[..., list[str]]) -> None:
    (name,) = modules("hooked_c")
    seen: list[str] = []
    after_import([name], lambda: seen.append("one"))
    after_import([name], lambda: seen.append("two"))
    __import__(name)
    assert sorted(seen) == ["one", "two"]


def test_an_action_that_fails_fails_the_import_and_is_tried_again(modules: Callable[..., list[str]]) -> None:
    (name,) = modules("hooked_d")
    outcomes = [KeyboardInterrupt(), ValueError("no")]

    def act() -> None:
        if outcomes:
            raise outcomes.pop()

    after_import([name], act)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            __import__(name)
        assert name not in sys.modules
    assert __import__(name).name == name
    assert outcomes == []


def test_modules_that_do_not_exist_stay_missing() -> None:
    finders = list(sys.meta_path)
    after_import(["hooked_missing"], lambda: pytest.fail("acted"))
    try:
        assert importlib.util.find_spec("hooked_missing") is None
        with pytest.raises(ModuleNotFoundError):
            __import__("hooked_missing")
    finally:
        sys.meta_path[:] = finders
