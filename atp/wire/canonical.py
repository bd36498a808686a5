"""Strict JSON parsing, RFC 8785 (JCS) serialisation, and the base64url and SHA-256 used with them.

Two correct readers of the same bytes must get the same value. So everything that JSON leaves open
is refused: duplicate members, lone surrogates, NaN, numbers that lose digits, unbounded nesting.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson
import rfc8785

from atp.errors import (
    MalformedDuplicateMember,
    MalformedError,
    MalformedJson,
    MalformedNumber,
    MalformedText,
    MalformedToken,
    MalformedTooDeep,
    MalformedTooLarge,
    excerpt,
)
from atp.wire.json_faults import first_fault, type_name

__all__ = [
    "ENVELOPE_MAX_BYTES",
    "ENVELOPE_MAX_DEPTH",
    "FRAME_MAX_DEPTH",
    "ParsedJson",
    "b64url",
    "b64url_decode",
    "check_depth",
    "digest",
    "is_plain",
    "is_surely_canonical",
    "locate_fault",
    "parse",
    "parse_noted",
    "serialize",
    "sha256_b64url",
]

ENVELOPE_MAX_BYTES = 512 * 1024  # docs/protocol.md#the-envelope
ENVELOPE_MAX_DEPTH = 32  # docs/protocol.md#json; the outermost object is at depth 1
FRAME_MAX_DEPTH = (
    ENVELOPE_MAX_DEPTH + 2
)  # a frame is an envelope, or holds one, or an array of them
SERIALIZE_MAX_DEPTH = 128  # ours: records put parsed values inside a few more objects
SAFE_INTEGER_MAX = 2**53 - 1  # RFC 7493 section 2.2: exact in every implementation
NUMBER_MAX_CHARS = 400  # ours: the longest useful literal is 5e-324 written out

_ORJSON = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_DATETIME
_ORJSON |= orjson.OPT_PASSTHROUGH_DATACLASS
# How `is_surely_canonical` finds floats: in JSON without white space a number follows `[`, `,` or
# the `":` of a member name. Remove digits and signs, replace `e` by a dot and `[` by a comma: now
# every float shows as `,.` or `":.`. A string may show the same; then the general parser is used,
# which is slower and gives the same result. (A regular expression took ten times as long.)
_TRACED = bytes.maketrans(b"[e", b",.")
_CONTAINERS = (dict, list)
_TO_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")
_FROM_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")
_BEYOND_BMP = re.compile(rb"[\xf0-\xf4]")  # first byte of a UTF-8 sequence above U+FFFF


@dataclass(frozen=True, slots=True)
class ParsedJson:
    """A parsed value, with facts that the parser found on the way.

    `plain` is true when orjson with sorted keys writes its RFC 8785 form: it has no floats, and no
    member name beyond the Basic Multilingual Plane. `canonical` is the input itself if that was
    already in RFC 8785 form, else `None`.
    """

    value: Any
    plain: bool
    canonical: bytes | None = None


def parse(
    data: bytes | str, *, max_bytes: int = ENVELOPE_MAX_BYTES, max_depth: int = FRAME_MAX_DEPTH
) -> Any:
    """Return the value of a JSON text of at most `max_bytes` bytes; raises a `MalformedError`."""
    return parse_noted(data, max_bytes=max_bytes, max_depth=max_depth).value


def parse_noted(
    data: bytes | str, *, max_bytes: int = ENVELOPE_MAX_BYTES, max_depth: int = FRAME_MAX_DEPTH
) -> ParsedJson:
    """Parse like `parse`, and return the value with the facts of `ParsedJson`.

    A number without a fraction is returned as `int`, also if it is written as `1.0`. Text that is
    already in RFC 8785 form (our own SDK sends nothing else) is parsed by orjson, which is faster:
    if orjson writes the same bytes again, there was no duplicate member and no digit was lost.
    """
    raw = _limited(data, max_bytes)
    parsed = _parse_canonical(raw) or _parse_general(raw)
    check_depth(parsed.value, max_depth, written=raw)
    return parsed


def serialize(value: Any, *, plain: bool = False) -> bytes:
    """Return the RFC 8785 form of `value`.

    `plain=True` skips the inspection. Pass it only if `parse_noted` found this value, or a value
    that contains it, to be plain. Raises a `MalformedError` if JSON can't express it exactly.
    """
    if plain or is_plain(value):
        return _orjson_dumps(value)
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as exc:
        raise locate_fault(MalformedNumber("a value has no RFC 8785 form"), value) from exc


def digest(value: Any, *, plain: bool = False) -> str:
    """Return the base64url SHA-256 of the RFC 8785 form of `value`."""
    return sha256_b64url(serialize(value, plain=plain))


def is_plain(value: Any, *, max_depth: int = SERIALIZE_MAX_DEPTH) -> bool:
    """Return whether `value` is plain (see `ParsedJson`).

    Raises a `MalformedError` that names the place if it is not JSON, or nests beyond `max_depth`.
    """
    try:
        return _inspect(value, max_depth)
    except MalformedError as problem:
        raise locate_fault(problem, value, max_depth=max_depth) from None


def locate_fault(
    problem: MalformedError, value: Any, *, max_depth: int = SERIALIZE_MAX_DEPTH
) -> MalformedError:
    """Return the first fault of `value` with its place, or `problem` if none is found.

    Numbers that RFC 8785 can't write so that they are read back are faults too.
    """
    return first_fault(value, _check_leaf, max_depth=max_depth) or problem


def check_depth(value: Any, max_depth: int, *, written: bytes) -> None:
    """Raise `MalformedTooDeep` when `value` nests objects and arrays beyond `max_depth`.

    `written` is its JSON text. If it has few enough brackets, the value need not be walked.
    """
    if written.count(b"{") + written.count(b"[") <= max_depth:
        return
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(max_depth):
        level = [child for parent in level for child in _nested(parent)]
        if not level:
            return
    # The place is not looked for: a stranger's input must not cost a search.
    raise _too_deep(max_depth)


def b64url(data: bytes) -> str:
    """Encode bytes as base64url without padding (RFC 7515 section 2)."""
    return _b64url(data).decode("ascii")


def sha256_b64url(data: bytes) -> str:
    """Return the base64url SHA-256 of bytes, the form of all digests in the protocol."""
    return b64url(hashlib.sha256(data).digest())


def b64url_decode(text: str) -> bytes:
    """Decode unpadded base64url; raises `MalformedToken` for any but its one canonical form."""
    try:
        written = text.encode("ascii")
        data = a2b_base64(written.translate(_FROM_URL_ALPHABET) + b"==")
    except ValueError as exc:  # binascii.Error and UnicodeEncodeError among them
        raise MalformedToken("a part is not base64url") from exc
    # The decoder skips characters outside its alphabet and ignores trailing bits. Encoding the
    # result again and comparing it with the input refuses both, and padding.
    if _b64url(data) != written:
        raise MalformedToken("a part is not base64url in canonical form")
    return data


def _b64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL_ALPHABET)


def _nested(parent: Any) -> Iterator[Any]:
    children = parent.values() if isinstance(parent, dict) else parent
    return (child for child in children if isinstance(child, _CONTAINERS))


def _limited(data: bytes | str, max_bytes: int) -> bytes:
    if isinstance(data, str):
        try:
            data = data.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise MalformedText("a lone surrogate") from exc
    if len(data) > max_bytes:
        raise MalformedTooLarge(f"it has {len(data)} bytes; at most {max_bytes} are allowed")
    return data


def is_surely_canonical(raw: bytes) -> bool:
    """Return whether `raw`, written by orjson with sorted keys, is certainly in RFC 8785 form.

    It is `False` if `raw` may hold a float, or a name beyond the Basic Multilingual Plane.
    """
    traces = raw.translate(_TRACED, b"0123456789+-")
    if b",." in traces or b'":.' in traces:
        return False
    return raw.isascii() or not _BEYOND_BMP.search(raw)


def _parse_canonical(raw: bytes) -> ParsedJson | None:
    """Return the value if `raw` is plain and in RFC 8785 form, else `None`, also for valid JSON."""
    if raw[:1] not in (b"{", b"["):
        return None
    if not is_surely_canonical(raw):
        return None
    try:
        value = orjson.loads(raw)
        if orjson.dumps(value, option=_ORJSON) != raw:
            return None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return ParsedJson(value, plain=True, canonical=raw)


def _parse_general(raw: bytes) -> ParsedJson:
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
        plain = _inspect(value, SERIALIZE_MAX_DEPTH)
    except UnicodeDecodeError as exc:
        raise MalformedText("the text is not UTF-8") from exc
    except RecursionError as exc:
        raise MalformedTooDeep("objects and arrays are nested too deep") from exc
    except MalformedError:  # a ValueError too
        raise
    except ValueError as exc:
        raise MalformedJson("the text is not JSON") from exc
    return ParsedJson(value, plain)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedDuplicateMember(f"member {excerpt(_twice(pairs))} appears twice")
    return members


def _twice(pairs: list[tuple[str, Any]]) -> str:
    """Return the first repeated name. One pass only, because the sender chooses the number."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _integer(literal: str) -> int:
    if len(literal) <= len("-9007199254740991"):
        number = int(literal)
        if -SAFE_INTEGER_MAX <= number <= SAFE_INTEGER_MAX:
            return number
    raise MalformedNumber(f"{excerpt(literal)} is beyond 2^53-1")


def _fraction(literal: str) -> int | float:
    """Return the number of a literal; raises `MalformedNumber` if its RFC 8785 form differs.

    That form is the shortest text that is read back as the same double.
    """
    if len(literal) > NUMBER_MAX_CHARS:
        raise MalformedNumber(f"a number has more than {NUMBER_MAX_CHARS} characters")
    number = float(literal)
    try:
        exact = Decimal(literal) == Decimal(repr(number))
    except InvalidOperation:
        exact = False
    if not exact:
        raise MalformedNumber(f"{excerpt(literal)} would lose digits")
    if not number.is_integer() or abs(number) >= _FIRST_WITH_EXPONENT:
        return number
    # RFC 8785 writes it without a fraction, so the next reader gets an integer. So do we.
    return _integer(str(int(number)))


def _constant(literal: str) -> Any:
    raise MalformedNumber(f"{literal} is not a JSON number")


_FIRST_WITH_EXPONENT: Final = 1e21  # ECMA-262 Number::toString: written as 1e+21 from here on
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_int=_integer,
    parse_float=_fraction,
    parse_constant=_constant,
)


def _inspect(value: Any, depth_left: int) -> bool:
    """Return whether `value` is plain (see `ParsedJson`).

    Raises a `MalformedError` if JSON can't express it exactly.
    """
    kind = type(value)
    if kind is str:
        return _inspect_text(value)
    if value is None or kind is bool:
        return True
    if kind is int:
        if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX:
            return True
        raise MalformedNumber(f"{excerpt(value)} is beyond 2^53-1")
    if kind is dict or kind is list or kind is tuple:
        return _inspect_container(value, depth_left - 1)
    if kind is float:
        return False
    if isinstance(value, str):  # the enums of atp.types
        return _inspect_text(str(value))
    raise MalformedJson(f"a value of the type {type_name(value)} has no JSON form")


def _check_leaf(value: Any) -> None:
    """Raise the `MalformedError` of a value that is no object and no array."""
    _inspect(value, 0)
    if type(value) is not float:
        return
    if not math.isfinite(value):
        raise MalformedNumber(f"{value} is not a JSON number")
    if value.is_integer() and SAFE_INTEGER_MAX < abs(value) < _FIRST_WITH_EXPONENT:
        # RFC 8785 writes it as an integer, which every reader refuses.
        raise MalformedNumber(f"{value} is beyond 2^53-1")


def _too_deep(max_depth: int) -> MalformedTooDeep:
    return MalformedTooDeep(f"objects and arrays nest more than {max_depth} deep")


def _inspect_container(value: Any, depth_left: int) -> bool:
    if depth_left < 0:
        raise MalformedTooDeep("objects and arrays are nested too deep")
    plain = True
    if type(value) is dict:
        for name in value:
            if not isinstance(name, str):
                raise MalformedJson(f"member name {excerpt(name)} is not a string")
            _inspect_text(name)
            # RFC 8785 sorts names by UTF-16 code units, orjson by code points. The two orders
            # differ beyond the Basic Multilingual Plane.
            if not name.isascii() and max(name) > "\uffff":
                plain = False
        value = value.values()
    for item in value:
        plain &= _inspect(item, depth_left)
    return plain


def _inspect_text(text: str) -> bool:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise MalformedText("a lone surrogate") from exc
    return True


def _orjson_dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=_ORJSON)
    except orjson.JSONEncodeError as exc:
        raise MalformedJson("a value has no JSON form") from exc
