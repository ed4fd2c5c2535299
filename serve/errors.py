"""The one kind of failure that a user of `serve` can cause or meet."""


class ServeError(Exception):
    """What could not be started, reached or registered. The message is one line: what happened, and what to do."""
