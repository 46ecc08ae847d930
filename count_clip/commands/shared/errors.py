"""Errors and exit codes of the commands."""

EXIT_CODES = """Exit codes:
  0    success
  1    some files or rows failed
  2    the command could not run
  3    internal error, after a traceback
  130  interrupted
  141  broken pipe"""


class CommandError(Exception):
    """The command cannot run; the message is for its user."""
