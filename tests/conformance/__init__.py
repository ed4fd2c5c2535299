"""One set of requests, for every server of an archive: who gets the same answers from two of them may move.

    python -m tests.conformance http://127.0.0.1:8080 --token "$(python -m serve token)" --archive model_store/digits.mar
    python -m tests.conformance http://127.0.0.1:8080 http://ray.example:8000 --token OLD --token NEW

Compared are statuses, types of content, headers of the project, and bodies: numbers to the last digit, messages word by word.
"""

import handler  # noqa: F401 (makes vit_core known)
