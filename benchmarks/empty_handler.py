"""A handler that reads nothing and answers with nothing: what TorchServe's front end, its transport and a client cost."""


def handle(data: list | None, context) -> list[dict] | None:
    """An empty answer for each request. TorchServe calls it once without requests, to initialize it."""
    return [{}] * len(data) if data else None
