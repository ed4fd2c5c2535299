"""predict in bulk beside the server: the same numbers, to the last digit."""

from predict.bulk import answer
from tests.bulk import rows
from tests.conformance.asked import between
from tests.conftest import LAST_DIGITS
from tests.e2e.conftest import SAMPLES


def test_a_row_has_the_numbers_of_the_servers_answer(client, digits_store, tmp_path):
    out = tmp_path / "out.jsonl"
    answer(digits_store / "digits.mar", [str(picture) for picture, _ in SAMPLES], out)
    found = [dict(zip(row["labels"], row["scores"], strict=True)) for row in rows(out)]
    served = [client.predict("digits", picture.read_bytes()).json() for picture, _ in SAMPLES]
    assert between(found, served, LAST_DIGITS) is None
