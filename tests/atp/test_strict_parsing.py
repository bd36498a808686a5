"""The strict parser: accepted texts, and refused texts with their codes."""

from __future__ import annotations

import sys

import pytest

from atp.errors import ATPError, MalformedDuplicateMember, MalformedToken, MalformedTooDeep
from atp.wire.canonical import b64url, b64url_decode, parse, parse_noted, serialize

REFUSED = {
    "a duplicate member": (b'{"a":1,"a":1}', "malformed.duplicate_member"),
    "a duplicate member, escaped": (rb'{"a":1,"\u0061":1}', "malformed.duplicate_member"),
    "a duplicate member, deep": (b'{"a":[{"b":1,"b":2}]}', "malformed.duplicate_member"),
    "bad UTF-8": (b'{"a":"\xff"}', "malformed.text"),
    "overlong UTF-8": (b'{"a":"\xc0\x80"}', "malformed.text"),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', "malformed.text"),
    "a lone surrogate": (rb'{"a":"\ud800"}', "malformed.text"),
    "a lone surrogate in a name": (rb'{"\udc00":1}', "malformed.text"),
    "surrogates the wrong way round": (rb'["\udc00\ud800"]', "malformed.text"),
    "NaN": (b'{"a":NaN}', "malformed.number"),
    "Infinity": (b"[-Infinity]", "malformed.number"),
    "an integer beyond 2^53-1": (b"[9007199254740992]", "malformed.number"),
    "an integer of a million digits": (b"[" + b"9" * 400_000 + b"]", "malformed.number"),
    "a lost digit": (b"[100.000000000000000001]", "malformed.number"),
    "a float that is an unsafe integer": (b"[1e16]", "malformed.number"),
    "a float beyond the range": (b"[1e400]", "malformed.number"),
    "a float too small": (b"[1e-400]", "malformed.number"),
    "an absurd exponent": (b"[1e-99999999999999999999]", "malformed.number"),
    "a float of many digits": (b"[0." + b"0" * 1000 + b"1]", "malformed.number"),
    "33 levels of arrays": (b"[" * 35 + b"]" * 35, "malformed.too_deep"),
    "100,000 open arrays": (b"[" * 100_000, "malformed.too_deep"),
    "60,000 levels of objects": (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "malformed.too_deep"),
    "nothing": (b"", "malformed.json"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "malformed.json"),
    "trailing text": (b"{} {}", "malformed.json"),
    "a trailing comma": (b"[1,]", "malformed.json"),
    "single quotes": (b"{'a':1}", "malformed.json"),
    "a raw control character": (b'["\x01"]', "malformed.json"),
    "a leading zero": (b"[01]", "malformed.json"),
    "a comment": (b"[1/**/]", "malformed.json"),
    "too many bytes": (b'["' + b"x" * 600_000 + b'"]', "malformed.too_large"),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED)
def test_rejects_what_two_readers_could_read_differently(text: bytes, code: str) -> None:
    with pytest.raises(ATPError) as caught:
        parse(text)
    assert caught.value.code == code
    assert len(str(caught.value)) < 300


def test_rejects_a_lone_surrogate_in_text_that_was_decoded_already() -> None:
    with pytest.raises(ATPError) as caught:
        parse('{"a":"\ud800"}')
    assert caught.value.code == "malformed.text"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[9007199254740991,-9007199254740991]", [2**53 - 1, 1 - 2**53]),
        (b"[100.0,4e2,-0,-0.0]", [100, 400, 0, 0]),
        (b"[1e21,1E+30,4.5,2e-3]", [1e21, 1e30, 4.5, 0.002]),
        (rb'["\ud83d\ude00","\u0000"]', ["\U0001f600", "\0"]),
        (b' {"b" : 1 , "a" : [ ] } ', {"b": 1, "a": []}),
        (b"null", None),
        (b"[" * 34 + b"]" * 34, None),
    ],
)
def test_it_reads_what_has_one_meaning(text: bytes, value: object) -> None:
    parsed = parse(text)
    assert value is None or parsed == value


def test_it_gives_integral_numbers_as_integers() -> None:
    """The canonical form is an int, so the original is parsed as an int too."""
    assert [type(number) for number in parse(b"[1.0,1e2,-0.0,0.5,1e21]")] == [
        int,
        int,
        int,
        float,
        float,
    ]


@pytest.mark.parametrize(
    ("text", "is_plain", "is_canonical"),
    [
        (b'{"a":1,"b":["x"]}', True, True),
        (b'{"b":["x"],"a":1}', True, False),
        (b'{"a": 1}', True, False),
        (b'{"a":1.5}', False, False),
        (b'{"a":"12:30:15.123Z, 1.5 e"}', True, True),
        ('{"\ue000":1,"\U00010000":2}'.encode(), False, False),
        ('{"a":"\U00010000"}'.encode(), True, False),
    ],
)
def test_it_notes_what_it_saw_in_passing(text: bytes, is_plain: bool, is_canonical: bool) -> None:
    parsed = parse_noted(text)
    assert parsed.plain is is_plain
    assert (parsed.canonical == text) is is_canonical


def test_it_sorts_names_beyond_the_basic_plane_by_utf_16() -> None:
    assert serialize({"\ue000": 1, "\U00010000": 2}) == '{"\U00010000":2,"\ue000":1}'.encode()


def test_it_escapes_every_character_as_rfc_8785_says() -> None:
    """The short cut relies on orjson's escapes: all of the BMP, compared with the reference."""
    import rfc8785

    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code <= 0xDFFF]
    assert serialize(characters) == rfc8785.dumps(characters)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1: 2}, {"a": b""}, object()])
def test_rejects_values_without_a_canonical_form(value: object) -> None:
    with pytest.raises(ATPError):
        serialize(value)


def test_rejects_values_that_nest_without_end() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(MalformedTooDeep):
        serialize(endless)


@pytest.mark.parametrize(
    "text", ["QQ==", "QR", "Q", "Q Q", "Q+", "Q/", "QQ\n", "QQ.", "Qé", "QUI="]
)
def test_rejects_base64url_that_is_not_canonical(text: str) -> None:
    with pytest.raises(MalformedToken):
        b64url_decode(text)


def test_it_reads_and_writes_canonical_base64url() -> None:
    for length in range(8):
        data = bytes(range(250, 250 + min(length, 6))) + b"?" * max(0, length - 6)
        assert b64url_decode(b64url(data)) == data


def test_it_leaves_the_recursion_limit_alone() -> None:
    before = sys.getrecursionlimit()
    with pytest.raises(MalformedTooDeep):
        parse(b"[" * 200_000)
    assert sys.getrecursionlimit() == before


def test_rejects_the_last_of_very_many_names_in_one_pass():
    """Looked for name by name this would not end today."""
    names = "".join(f'"{n}":0,' for n in range(400_000))
    with pytest.raises(MalformedDuplicateMember, match="399999"):
        parse(f'{{{names}"399999":0}}', max_bytes=10_000_000)
