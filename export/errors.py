"""The failures that a user of the export step can cause."""

from command_line import UserError


class ExportError(UserError):
    """The input cannot be exported. The message is one line: what was given, what was expected, what to do."""
