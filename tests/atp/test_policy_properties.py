"""What must hold of any policies and any message, whatever officers and senders write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atp.judging.policy import (
    ACTIONS,
    compile_policies,
    effective_sensitivity,
    evaluate,
    explain_rules,
)

RANK = ["deny", "quarantine", "escalate", "throttle", "allow"]
LEVELS = ["sandboxed", "unverified", "verified", "certified"]
SENSITIVITIES = ["public", "internal", "confidential", "restricted"]

CONDITIONS = st.one_of(
    st.tuples(st.just("sender.level"), st.sampled_from(["equals", "not_equals", "less_than",
        "at_most", "at_least", "greater_than"]), st.sampled_from(LEVELS)),
    st.tuples(st.just("sender.score"), st.sampled_from(["equals", "not_equals", "less_than",
        "at_most", "at_least", "greater_than"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["sender.id", "payload:/x"]), st.sampled_from(["in", "not_in"]),
        st.lists(st.sampled_from(["a", "b", "c"]), min_size=1)),
    st.tuples(st.just("sender.tags"), st.sampled_from(["contains_all", "in", "not_in"]),
        st.lists(st.sampled_from(["a", "b", "c"]), min_size=1)),
    st.tuples(st.just("payload:/x"), st.just("equals"), st.sampled_from([0, 1, True, False, "a"])),
    st.tuples(st.sampled_from(["sender.id", "sender.tags", "payload:/x", "sender.score"]),
        st.just("exists"), st.booleans()),
    st.tuples(st.just("time.hour"), st.just("between"),
        st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(lambda p: p[0] != p[1]).map(list)),
)  # fmt: skip

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 4),
    st.sampled_from([0.0, 1.0, 1.5, float("nan")]),
    st.sampled_from(["a", "b", "", *LEVELS]),
    st.lists(st.sampled_from(["a", "b", "c", 1, True]), max_size=3),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(tuple),
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "sender.level": st.one_of(st.sampled_from(LEVELS), ANYTHING),
        "sender.score": ANYTHING,
        "sender.id": ANYTHING,
        "sender.tags": ANYTHING,
        "time.now": st.integers(0, 200_000),
    },
)
PAYLOADS = st.one_of(st.none(), st.fixed_dictionaries({"x": ANYTHING}))


@st.composite
def rules(draw, actions=tuple(ACTIONS)):
    action = draw(st.sampled_from(actions))
    conditions = draw(st.lists(CONDITIONS, max_size=3))
    made = {
        "action": action,
        "priority": draw(st.integers(0, 3)),
        "always": not conditions,
        "conditions": [{"field": f, "operator": o, "value": v} for f, o, v in conditions],
    }
    if action == "throttle":
        made["throttle"] = {"limit": 1, "per_seconds": 1}
    return made


def numbered(drawn, name="p", **members):
    named = [{**rule, "name": f"{name}-{n}"} for n, rule in enumerate(drawn)]
    return {"name": name, "rules": named, **members}


def decide(documents, message, payload, *, over=False):
    policy_set = compile_policies(documents)
    return evaluate(policy_set, message, payload=payload, throttled=lambda *_: over)


@given(st.lists(rules(), max_size=6), st.lists(st.tuples(MESSAGES, PAYLOADS), min_size=1))
def test_it_finds_the_rules_that_going_condition_by_condition_finds(drawn, messages):
    # One set for many messages: what is remembered of one must not leak into the next.
    policy_set = compile_policies([numbered(drawn)])
    for message, payload in [*messages, *messages]:
        decision = evaluate(policy_set, message, payload=payload, throttled=lambda *_: False)
        verdicts = explain_rules(policy_set, message, payload)
        assert [m.rule for m in decision.matched] == [v.rule for v in verdicts if v.matches]


@given(st.lists(rules(), max_size=6), MESSAGES, PAYLOADS, st.booleans())
def test_it_decides_by_the_strictest_action_among_those_that_match(drawn, message, payload, over):
    decision = decide([numbered(drawn)], message, payload, over=over)
    actions = {match.action for match in decision.matched}
    held = [action for action in ("deny", "quarantine", "escalate") if action in actions]
    if held or "allow" not in actions:
        assert decision.action == (held[0] if held else "deny")
    else:
        assert decision.action == ("throttle" if over and "throttle" in actions else "allow")


@given(
    st.lists(rules(), max_size=5),
    rules(actions=tuple(action for action in ACTIONS if action != "allow")),
    MESSAGES,
    PAYLOADS,
)
def test_it_never_widens_by_a_rule_that_does_not_allow(drawn, more, message, payload):
    before = decide([numbered(drawn)], message, payload, over=True)
    after = decide([numbered(drawn), numbered([more], "q")], message, payload, over=True)
    # Where nothing decided, a rule may hold what was denied; released, it is denied again.
    if before.code == "policy.none":
        assert after.action in ("deny", "quarantine", "escalate")
    else:
        assert RANK.index(after.action) <= RANK.index(before.action)


@given(st.lists(rules(), max_size=4), st.lists(rules(), max_size=4), MESSAGES, PAYLOADS)
def test_it_is_bound_by_what_is_mandatory(local, mandatory, message, payload):
    operator = numbered(mandatory, "operator", mandatory=True, priority=999)
    alone = decide([operator], message, payload)
    both = decide([numbered(local, priority=0), operator], message, payload)
    if alone.code != "policy.none":
        assert RANK.index(both.action) <= RANK.index(alone.action)
    if both.action == "deny" == alone.action and alone.rule:
        assert both.rule == alone.rule


@given(st.lists(rules(), max_size=5), st.lists(rules(), max_size=5), MESSAGES, PAYLOADS)
def test_it_is_not_moved_by_the_order_of_documents_nor_by_watching(first, second, message, payload):
    documents = [numbered(first, "p"), numbered(second, "q")]
    one = decide(documents, message, payload)
    other = decide(documents[::-1], message, payload)
    assert one.to_record() == other.to_record()
    watched = [documents[0], {**documents[1], "mode": "monitor"}]
    assert (
        decide(watched, message, payload).matched == decide(documents[:1], message, payload).matched
    )


@given(st.lists(rules(), max_size=5), MESSAGES, PAYLOADS)
def test_it_decides_the_same_from_its_record(drawn, message, payload):
    documents = [numbered(drawn)]
    first = decide(documents, message, payload)
    again = decide(documents, first.consulted, payload)
    assert (again.action, again.rule, again.matched) == (first.action, first.rule, first.matched)


@given(st.lists(st.one_of(st.none(), st.sampled_from(SENSITIVITIES)), max_size=5))
def test_it_takes_the_highest_sensitivity(levels):
    said = [level for level in levels if level is not None]
    expected = max(said, key=SENSITIVITIES.index, default="restricted")
    assert effective_sensitivity(*levels) == expected
    assert effective_sensitivity(*levels, "top secret") == "restricted"
