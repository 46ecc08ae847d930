"""The command line `count-clip`, whose commands are in `commands/`."""
# PYTHON_ARGCOMPLETE_OK (a marker of argcomplete)

# This module and the tops of the commands import the standard library only, so that `--help` is fast.
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
    Run a command; returns the exit code: 0 success, 1 some files or rows failed, 2 the command could not run, 130
    interrupted, 141 broken pipe.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        return _complete(parser)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        # Escape characters that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parser.parse_args(arguments)
        options.arguments = arguments
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has printed the error
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except CommandError as error:
        print(f"count-clip: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if str(error) == "Could not determine home directory.":  # pathlib, for "~name"
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
        # For example `| head`. Without this, Python reports the error again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"count-clip: cannot write: {error.strerror}.", file=sys.stderr)
        # The rest of the buffer would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def run() -> int:
    """
    Run the command of this process, as the installed script does.

    Returns:
        `int`: As [`main`]; 3, after a traceback, for an unexpected error.
    """
    try:
        return main()
    except Exception:  # noqa: BLE001 (Python would exit with 1, which means that some files failed)
        traceback.print_exc()
        return 3


def _complete(parser: argparse.ArgumentParser) -> int:
    """Print the completions for the shell."""
    try:
        import argcomplete
    except ImportError:
        return 1
    argcomplete.autocomplete(parser)  # ends the process
    return 1


def build_parser() -> argparse.ArgumentParser:
    """
    Build the parser of all commands.

    Returns:
        `argparse.ArgumentParser`: Its result has `run`, a function that takes the options and returns the exit code.
    """
    parser = Parser(prog="count-clip", description="Count what you name in words.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"count-clip {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


__all__ = ["build_parser", "main"]
