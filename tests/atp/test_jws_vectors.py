"""JWS vectors of others: Wycheproof, the JOSE cookbook (RFC 7520), and RFC 8037 for Ed25519."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atp.errors import ATPError, KeyAlgorithm, KeyUnacceptable, MalformedToken, SignatureError
from atp.trust import keys
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.signing import verify_compact
from atp.wire.canonical import b64url

WYCHEPROOF_CASES = 401
# Valid by the book and refused on purpose, by number (tcId).
SYMMETRIC = {1, 348, 352, 357, 358, 359, 372, 373, 376, 377}  # a shared secret is no signature
UNSUPPORTED = {347, 351, *range(264, 272), *range(320, 324), *range(325, 329)}  # ES512, *384, *512
WRONG_ALGORITHM = {346, 350}  # the key says PS256, the token PS384; one key has one algorithm
EMPTY = {259, 272}  # an empty payload: nothing here is signed without claims
SMALL_RSA = {33, *range(260, 264), *range(273, 276), 287, 288, 345, 349}  # 2048 bits
REFUSED_ALWAYS = SYMMETRIC | UNSUPPORTED | WRONG_ALGORITHM | EMPTY


def _cases(vectors: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    text = (vectors / "wycheproof" / "json_web_signature_test.json").read_text("utf-8")
    for group in json.loads(text)["testGroups"]:
        for case in group["tests"]:
            yield case, group.get("public") or group["private"]


def _is_accepted(case: dict[str, Any], jwk: dict[str, Any]) -> bool:
    """Whether the wrapper takes it; only a typed error may say no."""
    try:
        verify_compact(case["jws"], PublicKey.from_jwk(jwk, alg=jwk.get("alg", "RS256")))
    except ATPError:
        return False
    return True


def _verdicts(vectors: Path) -> tuple[set[int], set[int], set[int]]:
    """Numbers of the invalid cases accepted, the valid ones accepted, the valid ones refused."""
    wrong, good, refused = set[int](), set[int](), set[int]()
    for case, jwk in _cases(vectors):
        accepted = _is_accepted(case, jwk)
        if case["result"] == "invalid":
            wrong |= {case["tcId"]} if accepted else set()
        else:
            (good if accepted else refused).add(case["tcId"])
    return wrong, good, refused


def test_it_accepts_no_invalid_wycheproof_case(vectors: Path) -> None:
    assert sum(1 for _ in _cases(vectors)) == WYCHEPROOF_CASES
    wrong, good, refused = _verdicts(vectors)
    assert wrong == set()
    assert refused == REFUSED_ALWAYS | SMALL_RSA
    assert good == {18, 378}


def test_it_accepts_no_invalid_wycheproof_case_were_small_rsa_keys_allowed(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its RSA keys are too small for us; refused for that, they would show nothing else."""
    monkeypatch.setattr(keys, "RSA_MIN_BITS", 2048)
    wrong, good, refused = _verdicts(vectors)
    assert wrong == set()
    assert refused == REFUSED_ALWAYS
    assert good == {18, 378} | SMALL_RSA


def _cookbook(vectors: Path, path: str) -> dict[str, Any]:
    example: dict[str, Any] = json.loads((vectors / "jose-cookbook" / path).read_text("utf-8"))
    return example


def test_it_signs_and_verifies_the_ed25519_example(vectors: Path) -> None:
    example = _cookbook(vectors, "curve25519/jws.json")
    key = PrivateKey.from_jwk(example["input"]["key"])
    signature = key.sign(example["signing"]["sig-input"].encode("ascii"))
    assert b64url(signature) == example["signing"]["sig"]
    payload = verify_compact(example["output"]["compact"], key.public)
    assert payload == example["input"]["payload"].encode("utf-8")


def test_it_verifies_the_rsa_example_were_small_keys_allowed(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = _cookbook(vectors, "jws/4_1.rsa_v15_signature.json")
    jwk = {name: example["input"]["key"][name] for name in ("kty", "n", "e", "use")}
    with pytest.raises(KeyUnacceptable, match="bits"):
        PublicKey.from_jwk(jwk, alg="RS256")
    monkeypatch.setattr(keys, "RSA_MIN_BITS", 2048)
    key = PublicKey.from_jwk(jwk, alg="RS256")
    payload = verify_compact(example["output"]["compact"], key)
    assert payload == example["input"]["payload"].encode("utf-8")
    for alg, error in (("PS256", KeyAlgorithm), ("RS256", SignatureError)):
        head, _, signature = example["output"]["compact"].rpartition(".")
        changed = f"{head[:-2]}AA.{signature}"
        with pytest.raises(error):
            verify_compact(changed, PublicKey.from_jwk(jwk, alg=alg))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("jws/4_2.rsa-pss_signature.json", "key.algorithm"),  # PS384
        ("jws/4_3.ecdsa_signature.json", "key.unacceptable"),  # P-521
        ("jws/4_4.hmac-sha2_integrity_protection.json", "key.unacceptable"),  # a shared secret
    ],
)
def test_rejects_the_cookbooks_examples_of_other_algorithms(
    vectors: Path, monkeypatch: pytest.MonkeyPatch, path: str, code: str
) -> None:
    monkeypatch.setattr(keys, "RSA_MIN_BITS", 2048)
    example = _cookbook(vectors, path)
    jwk = {name: value for name, value in example["input"]["key"].items() if len(name) > 2}
    members = {name: example["input"]["key"].get(name) for name in ("n", "e", "x", "y", "k")}
    jwk |= {name: value for name, value in members.items() if value is not None}
    alg = "PS256" if jwk["kty"] == "RSA" else None
    with pytest.raises(ATPError) as caught:
        verify_compact(example["output"]["compact"], PublicKey.from_jwk(jwk, alg=alg))
    assert caught.value.code == code


@pytest.mark.parametrize("form", ["json", "json_flat"])
def test_rejects_json_serialisation(vectors: Path, form: str) -> None:
    example = _cookbook(vectors, "curve25519/jws.json")
    key = PrivateKey.from_jwk(example["input"]["key"]).public
    for token in (example["output"][form], json.dumps(example["output"][form])):
        with pytest.raises(ATPError):
            verify_compact(token, key)


def test_rejects_detached_content(vectors: Path) -> None:
    example = _cookbook(vectors, "curve25519/jws.json")
    key = PrivateKey.from_jwk(example["input"]["key"]).public
    header, _, signature = example["output"]["compact"].split(".")
    with pytest.raises(MalformedToken):
        verify_compact(f"{header}..{signature}", key)
