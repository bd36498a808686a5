"""Text that people type into the registry: one canonical form, and nothing in it that hides.

Rules compare names, and people compare them by eye. So a text has no character that can't be seen
or that changes how others are shown, and what looks alike can be told.
"""

from __future__ import annotations

import re
import unicodedata

from atp.errors import MalformedDocument

__all__ = ["canonical", "check_text", "skeleton"]

# General categories of Unicode: control, format (bidi overrides, zero-width characters, the byte
# order mark), surrogate, private use, not assigned, line and paragraph separators.
HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Ignored or blank when shown, though their category is another: DerivedCoreProperties.txt of
# Unicode, Default_Ignorable_Code_Point, and the blank of Braille.
HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
BLANKS = re.compile(" {2,}")
NOT_COMPARED = re.compile(r"[\W_]+")
# What is read as another letter, after case folding and without accents. A few of the pairs of
# Unicode's confusables.txt: Cyrillic, Greek and digits that pass for Latin letters.
LOOKS_LIKE = str.maketrans(
    "авекмнорстухѕіјԛԝһԁӏґαβεηικνορτυχγω015$|!¡ı",  # noqa: RUF001  # ambiguous letters are what it is about
    "abekmhopctyxsijqwhdlrabenikvoptuxywolssllli",
)
TWINS = (("i", "l"), ("rn", "m"), ("vv", "w"))


def check_text(text: str, field: str, *, lines: bool = False) -> str:
    """Return `text` in the canonical form.

    Raises `MalformedDocument`, naming `field`, the place and the character, if it has one that
    can't be seen. `lines` says that the text may have several lines.
    """
    text = canonical(text, lines=lines)
    for place, character in enumerate(text, start=1):
        if _is_hidden(character) and not (lines and character in "\n\t"):
            name = unicodedata.name(character, "a control character")
            raise MalformedDocument(
                f"character {place} is U+{ord(character):04X} ({name.lower()}), which can't be"
                " seen; write the text without it",
                field=field,
            )
    return text


def canonical(text: str, *, lines: bool = False) -> str:
    """Return `text` in NFC, without blanks around it, each blank a plain one.

    In a text of one line, several blanks become one.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()
    text = "".join(" " if unicodedata.category(c) == "Zs" else c for c in text)
    return text if lines else BLANKS.sub(" ", text)


def skeleton(name: str) -> str:
    """Return what `name` looks like: two names with the same skeleton are easily confused.

    It ignores case, accents, blanks and punctuation, and reads letters of other scripts, and
    digits, as the Latin letters that they look like. Compare skeletons; show nobody one.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c) and not _is_hidden(c))
    plain = plain.translate(LOOKS_LIKE)
    for looks, like in TWINS:
        plain = plain.replace(looks, like)
    return NOT_COMPARED.sub("", plain)


def _is_hidden(character: str) -> bool:
    hidden = unicodedata.category(character) in HIDDEN_CATEGORIES
    return hidden or HIDDEN.match(character) is not None
