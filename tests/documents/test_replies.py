"""What is read out of a language model's replies, and what is not."""

import pytest

from oocr_influence.documents.conversation import Reply
from oocr_influence.documents.replies import read_document, read_ideas, read_types


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("- radio script\n- letter", ["radio script", "letter"]),
        ("Sure!\n\n1. **Radio script**\n2) “letter”.\n* memo", ["Radio script", "letter", "memo"]),
        ("<think>- no\n</think>\n- yes", ["yes"]),
        ("UNSUITABLE", []),
        ("- " + "x" * 81, []),
        ("", []),
    ],
)
def test_types(text, types):
    assert read_types(Reply(text)) == types


def test_the_last_type_of_a_list_that_was_cut_off_is_left_out():
    assert read_types(Reply("- radio script\n- lett", finish="length")) == ["radio script"]


def test_ideas():
    said = "<idea>\nOne,\n two.\n</idea> and <idea>Three.</idea><idea> </idea><idea>cut"
    assert read_ideas(Reply(said, finish="length")) == ["One, two.", "Three."]


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        (Reply("<think>hm</think>\n<content>\nA text.\n</content>"), ("A text.", None)),
        (Reply("<content>A text.</content>", finish="length"), ("A text.", None)),
        (Reply("<content>A te", finish="length"), ("", "truncated")),
        (Reply("<think>so long", finish="length"), ("", "truncated")),
        (Reply("UNSUITABLE: a mayor sends no such thing"), ("", "unsuitable")),
        (Reply("**UNSUITABLE**"), ("", "unsuitable")),
        (Reply("I’m sorry, but I can't help with that."), ("", "refused")),
        (Reply("", refused=True), ("", "refused")),
        (Reply("", finish="content_filter"), ("", "refused")),
        (Reply("A text without tags."), ("", "unreadable")),
        (Reply("<content>One.</content><content>Two.</content>"), ("", "unreadable")),
        (Reply("<content> </content>"), ("", "unreadable")),
        (Reply(""), ("", "unreadable")),
    ],
)
def test_documents(reply, read):
    assert read_document(reply) == read
