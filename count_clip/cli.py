"""The command line: `count-clip COMMAND`. The commands are in `commands/`."""
# PYTHON_ARGCOMPLETE_OK (argcomplete's sign that it may call this to complete a command line)

# Only the standard library up here and at the top of the commands, so that `--help` answers at once: a command imports
# torch and all that takes its time when it runs.
from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence

from ._version import __version__
from .commands import (
    ablation,
    convert,
    count,
    data,
    demo,
    evaluate,
    explain,
    export,
    index,
    info,
    push,
    report,
    search,
)
from .commands.shared.errors import EXIT_CODES, CommandError
from .commands.shared.options import Parser


COMMANDS = (count, info, index, search, explain, evaluate, report, data, convert, export, push, ablation, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv (`Sequence[str]`, *optional*): The arguments; those of the process by default.

    Returns:
        `int`: 0 if all is well, 1 if some files failed and the rest did not, 2 if the command could not be carried
        out, 130 if it was interrupted, 141 if the reader of its output has gone.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        return _complete(parser)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding has no letters for is no reason to stop.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parser.parse_args(arguments)
        options.arguments = arguments
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has said what there was to say
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except CommandError as error:
        print(f"count-clip: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if str(error) == "Could not determine home directory.":  # pathlib's, of "~name"
            print("count-clip: a path begins with ~, but there is no such user. Write ./~name.", file=sys.stderr)
            return 2
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch is not imported up here
            raise
        print("count-clip: out of memory on the device. Try a smaller --batch-size, or --device cpu.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("count-clip: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has gone (`| head`). Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell says of a program that SIGPIPE has ended
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"count-clip: cannot write: {error.strerror}.", file=sys.stderr)
        # What is left in the buffer would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def run() -> int:
    """
    Run the command of this process, as the installed script does.

    Returns:
        `int`: What [`main`] returns; 3, after the traceback, for an error that it does not know.
    """
    try:
        return main()
    except Exception:  # noqa: BLE001 (Python would end with 1, which says that some files failed)
        traceback.print_exc()
        return 3


def _complete(parser: argparse.ArgumentParser) -> int:
    """Answer the shell, which asks how a word may end."""
    try:
        import argcomplete
    except ImportError:
        return 1
    argcomplete.autocomplete(parser)  # ends the process
    return 1


def build_parser() -> argparse.ArgumentParser:
    """
    Put all commands and their options together.

    Returns:
        `argparse.ArgumentParser`: What it parses has `run`, the function that takes the parsed options, carries the
        command out and returns its exit code.
    """
    parser = Parser(
        prog="count-clip", description="Count what you name in words, and measure models that do.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"count-clip {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


__all__ = ["build_parser", "main"]
