"""Makes plain text of the titles and descriptions of Rakuten's sellers.

They hold HTML tags and entities, some escaped twice; bytes of CP1252 that were taken for Latin 1,
so that a euro became a control character; line breaks; and the word `nan` where a careless program
wrote what was missing.
"""

import html
import re

# Only names of HTML, for "<Neuf>" and "3 <5 et 7> 6" are words. What stands within a line leaves no
# gap: gr<b>an</b>d is one word.
_WITHIN = "a|abbr|b|big|em|font|i|mark|s|small|span|strike|strong|sub|sup|tt|u"
_APART = (
    "article|blockquote|body|br|caption|center|col|colgroup|dd|div|dl|dt|embed|figure|footer|form|"
    "h[1-6]|head|header|hr|html|iframe|img|input|label|li|link|meta|object|ol|option|p|param|pre|"
    "section|select|table|tbody|td|tfoot|th|thead|title|tr|ul|video"
)
_WITHIN_TAG = re.compile(rf"</?(?:{_WITHIN})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_APART_TAG = re.compile(rf"</?(?:{_APART})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_UNSEEN = re.compile(r"<!--.*?-->|<(style|script)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)

_CP1252 = {
    code: bytes([code]).decode("cp1252", "ignore") or " "  # five bytes stand for nothing
    for code in range(0x80, 0xA0)
}
_CONTROLS = {code: " " for code in [*range(0x20), 0x7F]}
_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])  # soft hyphens and so on

_ESCAPED = 2  # times, at most


def clean(text: str) -> str | None:
    """The text as a person sees it, in one line; None where there is nothing to see, or `nan`."""
    text = text.translate(_CP1252)
    for _ in range(_ESCAPED):
        text = html.unescape(_without_tags(text))
    text = _without_tags(text).translate(_CONTROLS | _INVISIBLE)
    text = " ".join(text.split())
    return None if text.casefold() in ("", "nan") else text


def _without_tags(text: str) -> str:
    text = _UNSEEN.sub(" ", text)
    return _APART_TAG.sub(" ", _WITHIN_TAG.sub("", text))
