"""How a command ends when something is wrong."""

EXIT_CODES = """Exit codes:
  0    all is well
  1    it was done, but not for all: some files could not be counted
  2    the command could not be carried out
  3    a fault in count-clip itself, which stopped it where the lines before say
  130  interrupted
  141  whoever read the output has gone"""


class CommandError(Exception):
    """The command cannot be carried out; the message is for its user."""
