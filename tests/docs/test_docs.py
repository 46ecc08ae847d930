"""
Every command and every Python block in the pages runs, as they are written, in one folder a page.

A block that cannot run here has a comment before it, `<!-- not run: REASON -->`; its commands are parsed all the same,
so that their options exist. What makes a run small enough for a test is added at its end, see `SHORTER` and
`SMALL_RUN`.
"""

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from count_clip.cli import build_parser
from count_clip.cli import main as count_clip
from count_clip.trainers.run import main as train
from count_clip.trainers.running.arguments import parse_run


REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "model_cards" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
# Block by block: the reason why it is not run, its language, its text. The fence may be indented in no page.
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)

# Added to a command unless it has them: fewer rows, and one device on any machine.
SHORTER = {
    # The stand-in for a CLIP reads no more than forty characters.
    ("evaluate", "classification"): ["--limit", "4", "--device", "cpu", "--template", "{}"],
    ("evaluate",): ["--limit", "4", "--device", "cpu"],
    ("count",): ["--device", "cpu"],
    ("explain",): ["--device", "cpu"],
    ("index",): ["--device", "cpu"],
    ("search",): ["--device", "cpu"],
}
# The stand-in for a CLIP has a token a character, and so cannot read the longest captions; the exit code is 1.
PARTIAL = [("evaluate", "relevance")]
# Added to a run: a few steps with a few rows, on the CPU, in this process.
SMALL_RUN = ["--max_steps", "2", "--dataloader_num_workers", "0", "--save_strategy", "no", "--disable_tqdm", "true"]
SMALL_RUN += ["--use_cpu", "true", "--eval_strategy", "no", "--load_best_model_at_end", "false", "--bf16", "false"]
SMALL_RUN_OF = {
    "countscenes": ["--dataset.num_scenes", "16", "--test_dataset.num_scenes", "9", "--warmup_steps", "0"],
    "countscenes_density": ["--eval_dataset.num_scenes", "3"],
    "count_aware_clip": ["--per_device_train_batch_size", "32", "--gradient_cache_chunk_size", "8"],
    "fsc147_density": ["--contrastive_epochs", "1"],
}
# Checked by their options alone wherever they stand: they measure for minutes, and have tests of their own.
BENCHMARKS = sorted(path.stem for path in (REPOSITORY / "benchmarks").glob("*.py"))


@dataclass
class Block:
    """A fenced block of a page."""

    where: str
    language: str
    text: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that a reader may type."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        line = text[: match.start("text")].count("\n")
        language = {"shell": "bash"}.get(match["language"], match["language"])
        found.append(Block(f"{page.name}:{line}", language, match["text"], match["reason"]))
    return found


def commands_of(block: Block) -> Iterator[list[str]]:
    """The commands of a block, as the shell splits them; what follows a `>` is left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words[: words.index(">")] if ">" in words else words


@pytest.mark.timeout(300)  # ten seconds of work for the longest page, but the machine may have other work too
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page: Path, workplace: Path, hub_with_checkpoints: Any, checkpoints: dict[str, Path]) -> None:
    _leave_behind(page, workplace, checkpoints)
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks_of(page):
        if block.language == "python":
            code = compile(block.text, block.where, "exec")
            if block.reason is None:
                exec(code, names)
        if block.language == "bash":
            for words in commands_of(block):
                check(words, block.where)
                if block.reason is None:
                    run(words, block.where)


def _leave_behind(page: Path, folder: Path, checkpoints: dict[str, Path]) -> None:
    """What the reader of a page has from another one."""
    if page.stem == "publishing":
        shutil.copytree(checkpoints["org/count-clip"], folder / "runs" / "my-count-clip")
        from peft import get_peft_model

        import count_clip

        base = count_clip.CLIPForCounting.from_pretrained(checkpoints["org/count-clip"])
        get_peft_model(base, count_clip.VisualPromptConfig(num_virtual_tokens=2)).save_pretrained(
            folder / "runs/my-prompts"
        )


def check(words: list[str], where: str) -> None:
    """See that a command and its options exist, without doing anything."""
    program, *rest = words
    try:
        if program == "count-clip":
            build_parser().parse_args(rest)
        elif program in ("accelerate", "torchrun"):
            config, overrides = _run_of(words, where)
            parse_run(config, overrides)
        elif program == "python":
            script = Path(rest[0])
            assert script.parent == Path("benchmarks"), f"{where}: {words}"
            known = _help_of(script.stem)
            options = [word.partition("=")[0] for word in rest[1:] if word.startswith("--")]
            assert all(re.search(rf"(?<!\S){option}\b", known) for option in options), f"{where}: {words}"
        elif program == "make":
            assert re.search(rf"^{rest[0]}:", (REPOSITORY / "Makefile").read_text(), re.M), f"{where}: {words}"
        elif program == "pip":
            _check_extras(" ".join(rest), where)
        else:
            assert program in ("eval", "hf", "export"), f"{where}: {program!r} is no command that this test knows"
    except SystemExit as stop:
        raise AssertionError(f"{where}: {' '.join(words)} is refused ({stop.code})") from stop


def run(words: list[str], where: str) -> None:
    """Run a command in this process."""
    program, *rest = words
    if program == "count-clip":
        more = [] if rest[-1] == "--help" else _shorter(rest)
        codes = {0, 1} if tuple(rest[:2]) in PARTIAL else {0}
        assert count_clip([*rest, *more]) in codes, f"{where}: {' '.join(words)}"
    elif program in ("accelerate", "torchrun"):
        config, overrides = _run_of(words, where)
        name = Path(config).stem
        small = [option for start, options in SMALL_RUN_OF.items() if name.startswith(start) for option in options]
        if name == "countscenes_base":  # has no set of its own to measure with
            small = [
                option
                for pair in zip(small[::2], small[1::2], strict=True)
                if "eval" not in pair[0]
                for option in pair
            ]
        train([config, *overrides, *SMALL_RUN, *small])
    else:
        raise AssertionError(f"{where}: {' '.join(words)} cannot be run here. Give the reason in a comment.")


def _shorter(arguments: list[str]) -> list[str]:
    for start, options in SHORTER.items():
        if tuple(arguments[: len(start)]) == start:
            pairs = zip(options[::2], options[1::2], strict=True)
            return [word for option, value in pairs if option not in arguments for word in (option, value)]
    return []


def _run_of(words: list[str], where: str) -> tuple[str, list[str]]:
    """The configuration and the overrides of `accelerate launch ... trainers/run.py ...` or of torchrun's the same."""
    if words[0] == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert words[1] == "launch", f"{where}: {words}"
        launched = launch_command_parser().parse_args(words[2:])
        file = launched.config_file
        assert file is None or (REPOSITORY / file).is_file(), f"{where}: there is no {file}"
    else:
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(words[1:])
    assert launched.training_script == "trainers/run.py", f"{where}: {words}"
    config, *overrides = launched.training_script_args
    return (str(REPOSITORY / config) if config.endswith(".yaml") else config), overrides


def _help_of(name: str) -> str:
    """The help text of a benchmark."""
    assert name in BENCHMARKS, f"There is no benchmarks/{name}.py."
    spec = importlib.util.spec_from_file_location(f"{name}_of_docs", REPOSITORY / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        patch.setattr(sys, "argv", [name, "--help"])
        module.main()
    del sys.modules[spec.name]
    return printed.getvalue()


def _check_extras(text: str, where: str) -> None:
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"\[([\w,-]+)\]", text):
        assert set(extras.split(",")) <= set(known), f"{where}: {extras} is no extra of this package"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_names_of_a_page_exist(page: Path) -> None:
    """Links to files and headings, extras, benchmarks, and commands in the text."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"[A-Z]{6,}_TABLE|TODO", text)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#([\w-]+))?\)", text):
        path = page.parent / target[0]
        assert path.exists(), f"{page.name} links to {target[0]}"
        if target[1]:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            assert target[1] in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    _check_extras(" ".join(re.findall(r"count-clip\[[\w,-]+\]", text)), page.name)
    for name in re.findall(r"benchmarks/(\w+)\.py", text):
        assert name in BENCHMARKS, f"{page.name} names benchmarks/{name}.py"
    for command in re.findall(r"`count-clip ([a-z][a-z -]*)", text):
        _check_command(command.split(), page.name)
    for block in blocks_of(page):
        if block.language == "bash":
            for words in commands_of(block):
                if words[0] == "pip":
                    _check_extras(" ".join(words), block.where)
        if block.language == "python":
            compile(block.text, block.where, "exec")


def _check_command(words: Sequence[str], where: str) -> None:
    parser: argparse.ArgumentParser | None = build_parser()
    for word in words:
        choices = _subcommands(parser)
        if not choices or word.startswith("-"):
            return
        assert word in choices, f"{where} names `count-clip {' '.join(words)}`, but there is no {word!r}"
        parser = choices[word]


def _subcommands(parser: argparse.ArgumentParser | None) -> dict[str, argparse.ArgumentParser]:
    actions = [] if parser is None else parser._actions
    found = [action.choices for action in actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def test_blocks_have_reasons_and_languages() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(\w*)$", page.read_text(encoding="utf-8"), re.M)
        assert set(fences[::2]) <= {"bash", "python", "bibtex"}, page.name
        found = blocks_of(page)
        assert len(found) == len(fences[::2]), page.name
        assert any(block.reason is None for block in found), page.name
        assert all(len(block.reason or "a reason") >= 8 for block in found)


def test_mistakes_in_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: never -->\n```bash\ncount-clip count a.png --txt dogs --model m\n```\n")
    [block] = blocks_of(page)
    assert (block.where, block.reason) == ("page.md:2", "never")
    with pytest.raises(AssertionError, match="page.md:2: count-clip count a.png --txt dogs --model m is refused"):
        check(next(commands_of(block)), block.where)
    with pytest.raises(AssertionError, match="cannot be run here"):
        run(["hf", "auth", "login"], "page.md:1")
    with pytest.raises(ValueError, match="no_such_key"):
        check(["accelerate", "launch", "trainers/run.py", "countscenes_base", "--no_such_key", "3"], "page.md:1")
    with pytest.raises(AssertionError, match="there is no trainers/accelerate/none.yaml"):
        check(
            ["accelerate", "launch", "--config_file", "trainers/accelerate/none.yaml", "trainers/run.py", "x"],
            "page.md:1",
        )
    with pytest.raises(AssertionError, match="is no extra"):
        check(["pip", "install", "count-clip[nothing]"], "page.md:1")
    with pytest.raises(AssertionError, match="--speed"):
        check(["python", "benchmarks/recipes.py", "--speed", "3"], "page.md:1")
