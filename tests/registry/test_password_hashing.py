"""Passwords are hashed a few at a time: known people first, and few strangers wait."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password

from registry.officers.hashing import HashingBusy, HashingPriority, HashingQueue
from tests.waits import LONGEST_SECONDS, result


def _come(
    pool: ThreadPoolExecutor,
    queue: HashingQueue,
    whose: HashingPriority,
    passed: list[HashingPriority],
) -> Future[None]:
    """Start one more thread that waits at a queue without a free slot."""
    already = queue.waiting()

    def pass_through() -> None:
        with queue.slot(whose):
            passed.append(whose)

    coming = pool.submit(pass_through)
    end = time.monotonic() + LONGEST_SECONDS
    while queue.waiting() == already and not coming.done():
        assert time.monotonic() < end, f"{whose.name} did not come to the queue"
        time.sleep(0.005)
    return coming


def test_it_lets_known_people_pass_before_strangers() -> None:
    queue, passed = HashingQueue(1, 5), list[HashingPriority]()
    come = (
        HashingPriority.STRANGER,
        HashingPriority.STRANGER,
        HashingPriority.KNOWN_BROWSER,
        HashingPriority.SIGNED_IN,
    )
    with ThreadPoolExecutor(len(come)) as pool:
        with queue.slot(HashingPriority.STRANGER):
            coming = [_come(pool, queue, whose, passed) for whose in come]
            assert passed == []
        for one in coming:
            result(one, "a slot of the queue")
    assert passed == sorted(come)


def test_rejects_a_stranger_where_many_wait_and_nobody_else() -> None:
    queue, passed = HashingQueue(1, 2), list[HashingPriority]()
    with ThreadPoolExecutor(3) as pool:
        with queue.slot(HashingPriority.STRANGER):
            coming = [_come(pool, queue, HashingPriority.STRANGER, passed) for _ in range(2)]
            with pytest.raises(HashingBusy), queue.slot(HashingPriority.STRANGER):
                pass
            coming.append(_come(pool, queue, HashingPriority.KNOWN_BROWSER, passed))
        for one in coming:
            result(one, "a slot of the queue")
    assert len(passed) == 3


def test_it_frees_the_slot_after_an_exception() -> None:
    queue = HashingQueue(1, 0)
    with pytest.raises(ValueError), queue.slot(HashingPriority.SIGNED_IN):
        raise ValueError
    with queue.slot(HashingPriority.SIGNED_IN):
        pass


def test_it_hashes_behind_the_queue_and_verifies_what_was_stored_before() -> None:
    before = PBKDF2PasswordHasher().encode("a password", "salt" * 6)
    assert before.startswith("pbkdf2_sha256$")
    assert check_password("a password", before)
    assert not check_password("another", before)
