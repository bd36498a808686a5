"""Passwords are hashed a few at a time: those of known people first, of strangers within bounds."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password

from registry.officers.hashing import Gate, HashingBusy, Turn
from tests.waits import LONGEST_SECONDS, result


def _come(pool: ThreadPoolExecutor, gate: Gate, whose: Turn, passed: list[Turn]) -> Future[None]:
    """One more who waits at a gate that is taken."""
    already = gate.waiting()

    def pass_through() -> None:
        with gate.passing(whose):
            passed.append(whose)

    coming = pool.submit(pass_through)
    end = time.monotonic() + LONGEST_SECONDS
    while gate.waiting() == already and not coming.done():
        assert time.monotonic() < end, f"{whose.name} did not come to the gate"
        time.sleep(0.005)
    return coming


def test_it_lets_known_people_pass_before_strangers() -> None:
    gate, passed = Gate(1, 5), list[Turn]()
    come = (Turn.STRANGER, Turn.STRANGER, Turn.KNOWN_BROWSER, Turn.SIGNED_IN)
    with ThreadPoolExecutor(len(come)) as pool:
        with gate.passing(Turn.STRANGER):
            coming = [_come(pool, gate, whose, passed) for whose in come]
            assert passed == []
        for one in coming:
            result(one, "a turn at the gate")
    assert passed == sorted(come)


def test_rejects_a_stranger_where_many_wait_and_nobody_else() -> None:
    gate, passed = Gate(1, 2), list[Turn]()
    with ThreadPoolExecutor(3) as pool:
        with gate.passing(Turn.STRANGER):
            coming = [_come(pool, gate, Turn.STRANGER, passed) for _ in range(2)]
            with pytest.raises(HashingBusy), gate.passing(Turn.STRANGER):
                pass
            coming.append(_come(pool, gate, Turn.KNOWN_BROWSER, passed))
        for one in coming:
            result(one, "a turn at the gate")
    assert len(passed) == 3


def test_it_frees_the_gate_after_an_exception() -> None:
    gate = Gate(1, 0)
    with pytest.raises(ValueError), gate.passing(Turn.SIGNED_IN):
        raise ValueError
    with gate.passing(Turn.SIGNED_IN):
        pass


def test_it_hashes_behind_the_gate_and_verifies_what_was_stored_before() -> None:
    before = PBKDF2PasswordHasher().encode("a password", "salt" * 6)
    assert before.startswith("pbkdf2_sha256$")
    assert check_password("a password", before)
    assert not check_password("another", before)
