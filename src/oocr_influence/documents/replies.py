"""Reading a language model's replies: lists, ideas, documents, and the ways of getting none.

Models think aloud, number their lists, forget a closing tag, apologise. What can be read is read;
what cannot is named by one word, which ends up in the counts of the dataset.
"""

from __future__ import annotations

import re

from oocr_influence.documents.conversation import Reply

# Why a reply holds no document.
UNSUITABLE, REFUSED, TRUNCATED, UNREADABLE = "unsuitable", "refused", "truncated", "unreadable"

_THOUGHT = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:[-*•–]|\d+[.)])\s+(.+?)\s*$")
_IDEA = re.compile(r"<idea>(.*?)</idea>", re.DOTALL)
_CONTENT = re.compile(r"<content>(.*?)</content>", re.DOTALL)
_UNSUITABLE = re.compile(r"^\W*UNSUITABLE\b")
_APOLOGY = re.compile(
    r"^\W*(I'm sorry|I am sorry|Sorry|I apologi[sz]e|I can't|I cannot|I won't"
    r"|I'm (unable|not able))",
    re.IGNORECASE,
)
LONGEST_TYPE = 80  # characters: more is no name of a type but a remark


def read_types(reply: Reply) -> list[str]:
    """The items of a list, one a line; a last line that was cut off is left out."""
    lines = _said(reply).splitlines()
    if reply.finish == "length":
        lines = lines[:-1]
    found = [match[1] for match in map(_ITEM.match, lines) if match]
    named = [re.sub(r"[*_\"“”`]", "", item).strip(" .;,") for item in found]
    return [item for item in named if 0 < len(item) <= LONGEST_TYPE]


def read_ideas(reply: Reply) -> list[str]:
    """The texts between `<idea>` tags, each on one line."""
    return [text for text in (" ".join(m.split()) for m in _IDEA.findall(_said(reply))) if text]


def read_document(reply: Reply) -> tuple[str, str | None]:
    """The text between `<content>` tags and None; or nothing and the word for why there is none."""
    said = _said(reply)
    documents = _CONTENT.findall(said)
    if len(documents) == 1 and documents[0].strip():
        return documents[0].strip(), None
    return "", why_nothing(reply) or UNREADABLE


def why_nothing(reply: Reply) -> str | None:
    """The word for a reply that declines or breaks off; None for any other."""
    said = _said(reply).replace("’", "'")
    if _UNSUITABLE.match(said):
        return UNSUITABLE
    if reply.refused or reply.finish == "content_filter" or _APOLOGY.match(said):
        return REFUSED
    return TRUNCATED if reply.finish == "length" else None


def _said(reply: Reply) -> str:
    """The reply without the thoughts of a reasoning model."""
    return _THOUGHT.sub("", reply.text).strip()
