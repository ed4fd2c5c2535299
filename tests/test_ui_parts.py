"""The pieces of the page that need no browser: which labels are shown, how, and what is escaped."""

import pytest

from serve.errors import ServeError
from ui.asking import NotOffered
from ui.parts import label_list, note


@pytest.mark.parametrize(
    ("scores", "probabilities", "rows"),
    [
        ({"cat": 0.99951, "dog": 0.0005, "cow": 0.0004}, True, ["<span>cat</span>100.0%", "<span>dog</span>0.1%"]),
        ({"cat": 0.0004, "dog": 0.0001}, True, ["<span>cat</span>under 0.1%"]),
        (
            {"cat": 12.5, "dog": 0.0001, "cow": -3.0},
            False,
            ["<span>cat</span>12.5", "<span>dog</span>0.0001", "<span>cow</span>-3"],
        ),
        ({"<i> & co": 0.5}, True, ["<span>&lt;i&gt; &amp; co</span>50.0%"]),
    ],
)
def test_no_row_says_nothing(scores, probabilities, rows):
    shown = label_list(scores, probabilities).replace('<span class="score">', "").split("<li>")[1:]
    assert len(shown) == len(rows) and all(row in html for row, html in zip(rows, shown, strict=True))
    assert 'aria-pressed="true"' in shown[0] and not any('aria-pressed="true"' in html for html in shown[1:])


def test_an_answer_without_labels_is_said():
    assert "No label reaches its threshold." in label_list({}, True)


def test_a_note_is_a_sentence_and_grey_where_nothing_failed():
    assert note(ServeError("a <b>")) == '<p role="alert" class="note">A &lt;b&gt;</p>'
    assert "quiet" in note(NotOffered("no maps"))
