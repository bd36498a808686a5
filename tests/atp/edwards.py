"""Points of edwards25519 (RFC 8032, section 5.1), simple and slow, to make odd signatures."""

from __future__ import annotations

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]


def add(first: Point, second: Point) -> Point:
    (x1, y1), (x2, y2) = first, second
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P
    return x, y


def times(factor: int, point: Point) -> Point:
    total = (0, 1)
    while factor:
        if factor & 1:
            total = add(total, point)
        point, factor = add(point, point), factor >> 1
    return total


def encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _x_of(y: int) -> int | None:
    squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - squared) % P:
        return None
    return x if x % 2 == 0 else P - x


def _point(y: int) -> Point | None:
    x = _x_of(y)
    return None if x is None else (x, y)


def _find_order_8() -> Point:
    """Any point times the order of the base leaves its low-order part."""
    for y in range(2, 1000):
        point = _point(y)
        if point is not None:
            low = times(ORDER, point)
            if times(4, low) != (0, 1):
                return low
    raise AssertionError("an eighth of all points would do")


_base = _point(4 * pow(5, -1, P) % P)
assert _base is not None
BASE: Point = _base
ORDER_8 = _find_order_8()
