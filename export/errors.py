"""The one kind of failure that a user of the export step can cause."""


class ExportError(Exception):
    """Something that was given cannot be exported. The message is one line: what was given, what was expected, what to do."""
