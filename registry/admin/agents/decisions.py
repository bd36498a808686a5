"""The pages on which officers decide about an agent: invite, approve, attest, suspend, revoke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern

from atp.trust.fingerprint import fingerprint
from registry import impact
from registry.admin.agents.forms import ApproveKeyForm
from registry.admin.attestations.forms import AttestForm
from registry.admin.bulk import BulkAdmin
from registry.admin.fields import EFFECT, CompromisedForm, ReasonForm
from registry.admin.pages import Question, acting, posted
from registry.agents.actions import (
    ENROLMENT_LIFE,
    approve_key,
    issue_enrolment_token,
    refuse_key,
    resume_agent,
    revoke_agent,
    revoke_key,
    suspend_agent,
)
from registry.agents.models import Agent, AgentKey
from registry.attestations.actions import issue_attestation
from registry.hub.actions import hub_id
from registry.officers.actor import Actor


class AgentDecisions(BulkAdmin[Agent]):
    """The decision pages of agents. Each shows a question; its POST runs one action."""

    def decision_urls(self) -> list[URLPattern]:
        """Return the URLs of all decision pages; a fixed route comes before an agent id."""
        one, key = "<str:object_id>", "<str:object_id>/keys/<str:kid>"
        return [
            self.decision_url("attest-many/", self.attest_many_view),
            self.decision_url("suspend-many/", self.suspend_many_view),
            self.decision_url("resume-many/", self.resume_many_view),
            self.decision_url("revoke-many/", self.revoke_many_view),
            self.decision_url(f"{one}/edit/", self.edit_view),
            self.decision_url(f"{one}/invite/", self.invite_view),
            self.decision_url(f"{one}/attest/", self.attest_view),
            self.decision_url(f"{one}/suspend/", self.suspend_view),
            self.decision_url(f"{one}/resume/", self.resume_view),
            self.decision_url(f"{one}/revoke/", self.revoke_view),
            self.decision_url(f"{key}/approve/", self.approve_view),
            self.decision_url(f"{key}/refuse/", self.refuse_view),
            self.decision_url(f"{key}/revoke-key/", self.revoke_key_view),
        ]

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Change an agent's registration; `AgentAdmin` implements it."""
        raise NotImplementedError

    def invite_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Issue an enrolment token and show it once."""
        agent = self.get_row(request, object_id, to_change=True)
        hours = int(ENROLMENT_LIFE.total_seconds() // 3600)
        question = Question(
            title=f"Issue an enrolment token for {agent.pk}",
            text=f"The token is shown once. It works once, within {hours} hours. It replaces an"
            " open token of this agent. Bring it to the owner by a way that you trust.",
            button="Issue the token",
            back=self.url("change", agent.pk),
            about=(agent,),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse:
            issued = issue_enrolment_token(agent.pk, actor=actor)
            return self.render(
                request,
                "agent/token.html",
                title=f"Enrolment token for {agent.pk}",
                agent=agent,
                issued=issued,
                hub_url=request.build_absolute_uri("/").rstrip("/"),
                same_machine=request.get_host().partition(":")[0] in {"127.0.0.1", "localhost"},
                hub_id=hub_id(),
            )

        return self.decide(request, forms.Form(posted(request)), question, run)

    def approve_view(self, request: HttpRequest, object_id: str, kid: str) -> HttpResponse:
        """Approve a pending key, after the officer has compared its fingerprint with the owner."""
        agent, key = self._key(request, object_id, kid)
        misused = agent.enrolment_tokens.exclude(misused_at=None).exists()
        warning = (
            "An enrolment token of this agent was tried a second time. Another person may have used"
            " it first. If the fingerprint is not the owner's, refuse the key and issue another"
            " token."
        )
        question = Question(
            title=f"Approve the key of {agent.pk}",
            text="Call the owner and compare the fingerprint, all twelve groups of digits. Once you"
            f" approve the key, its holder can send as {agent.pk}.",
            alarm=warning if misused else "",
            button="Approve this key",
            back=self.url("change", agent.pk),
            about=(agent, key),
            facts=(
                ("Owner", f"{agent.owner_name} {agent.owner_contact}".strip()),
                ("Fingerprint", fingerprint(key.kid)),
                ("Algorithm", key.algorithm),
                ("Enrolled", f"{key.enrolled_at:%Y-%m-%d %H:%M:%S} UTC"),
            ),
            done=f"The key is approved, and {agent.pk} can connect. Attest it next: policies trust"
            " only attested agents.",
        )
        form = ApproveKeyForm(posted(request))
        if not AgentKey.objects.usable().filter(agent=agent).exists():
            del form.fields["revoke_earlier"]

        def run(values: Mapping[str, Any], actor: Actor) -> None:
            earlier = bool(values.get("revoke_earlier"))
            approve_key(key.kid, actor=actor, reason=values["reason"], revoke_earlier=earlier)

        return self.decide(request, form, question, run)

    def refuse_view(self, request: HttpRequest, object_id: str, kid: str) -> HttpResponse:
        """Refuse a pending key for good."""
        agent, key = self._key(request, object_id, kid)
        question = Question(
            title=f"Refuse the key of {agent.pk}",
            text="The key is refused for good. The owner needs another token to enrol a new key.",
            button="Refuse this key",
            back=self.url("change", agent.pk),
            about=(agent, key),
            facts=(("Fingerprint", fingerprint(key.kid)),),
            danger=True,
            done="The key is refused.",
        )
        form = ReasonForm(posted(request))
        return self.decide(request, form, question, acting(refuse_key, key.kid))

    def revoke_key_view(self, request: HttpRequest, object_id: str, kid: str) -> HttpResponse:
        """Revoke a key, with the time since when it may be compromised."""
        agent, key = self._key(request, object_id, kid)
        question = Question(
            title=f"Revoke a key of {agent.pk}",
            text="The agent's sockets close at once. It stays registered and can enrol another"
            " key.",
            button="Revoke this key",
            back=self.url("change", agent.pk),
            about=(agent, key),
            facts=(
                ("Fingerprint", fingerprint(key.kid)),
                ("Status", key.get_status_display()),
                (EFFECT, impact.of_agent_key(key)),
            ),
            danger=True,
            done="The key is revoked.",
        )
        form = CompromisedForm(posted(request))
        return self.decide(request, form, question, acting(revoke_key, key.kid))

    def attest_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Issue an attestation for an agent, by an issuer whose key the hub holds."""
        agent = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Attest {agent.pk}",
            text="The issuer vouches for this agent and for its present key.",
            button="Attest",
            back=self.url("change", agent.pk),
            about=(agent,),
            done=f"Agent {agent.pk} is attested.",
        )
        form = AttestForm(
            posted(request), initial={"capabilities": list(agent.declared_capabilities)}
        )
        return self.decide(request, form, question, acting(issue_attestation, agent.pk))

    def suspend_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Suspend an agent."""
        agent = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Suspend {agent.pk}",
            text="The agent's sockets close at once. Until you resume it, the hub accepts none of"
            " its envelopes and holds its waiting mail.",
            button="Suspend",
            back=self.url("change", agent.pk),
            about=(agent,),
            facts=((EFFECT, impact.of_agents([agent.pk])),),
            danger=True,
            done=f"Agent {agent.pk} is suspended.",
        )
        form = ReasonForm(posted(request))
        return self.decide(request, form, question, acting(suspend_agent, agent.pk))

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Resume a suspended agent."""
        agent = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Resume {agent.pk}",
            text="The agent can connect again with the key that it has.",
            button="Resume",
            back=self.url("change", agent.pk),
            about=(agent,),
            facts=(("Suspended because", agent.status_reason),),
            done=f"Agent {agent.pk} is resumed.",
        )
        form = ReasonForm(posted(request))
        return self.decide(request, form, question, acting(resume_agent, agent.pk))

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Revoke an agent for good."""
        agent = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Revoke {agent.pk}",
            text="This is final. The agent's keys are revoked, its sockets close at once, and its"
            " waiting mail is withheld. To stop it only for a while, suspend it.",
            button="Revoke for good",
            back=self.url("change", agent.pk),
            about=(agent,),
            facts=((EFFECT, impact.of_agents([agent.pk])),),
            danger=True,
            done=f"Agent {agent.pk} is revoked.",
        )
        form = CompromisedForm(posted(request))
        return self.decide(request, form, question, acting(revoke_agent, agent.pk))

    def attest_many_view(self, request: HttpRequest) -> HttpResponse:
        """Attest all chosen agents, with the same form."""
        question = Question(
            title="Attest several agents",
            text="Each agent gets its own attestation, for its present key.",
            button="Attest them",
            back=self.url("changelist"),
        )
        form = AttestForm(posted(request))
        return self.decide_many(request, "agent.attest", form, question, lambda ids: ())

    def suspend_many_view(self, request: HttpRequest) -> HttpResponse:
        """Suspend all chosen agents, with one reason."""
        question = Question(
            title="Suspend several agents",
            text="Their sockets close at once. Until you resume them, the hub accepts none of"
            " their envelopes.",
            button="Suspend them",
            back=self.url("changelist"),
            danger=True,
        )
        return self.decide_many(
            request, "agent.suspend", ReasonForm(posted(request)), question, _harm
        )

    def resume_many_view(self, request: HttpRequest) -> HttpResponse:
        """Resume all chosen agents that are suspended, with one reason."""
        question = Question(
            title="Resume several agents",
            text="They can connect again with the keys that they have. An agent that is not"
            " suspended, or was suspended anew after you had chosen it, is left as it is.",
            button="Resume them",
            back=self.url("changelist"),
        )
        return self.decide_many(
            request, "agent.resume", ReasonForm(posted(request)), question, _by_status
        )

    def revoke_many_view(self, request: HttpRequest) -> HttpResponse:
        """Revoke all chosen agents for good, with one reason."""
        question = Question(
            title="Revoke several agents",
            text="This is final. Their keys are revoked, their sockets close at once, and their"
            " waiting mail is withheld. To stop them only for a while, suspend them.",
            button="Revoke them for good",
            back=self.url("changelist"),
            danger=True,
        )
        return self.decide_many(
            request, "agent.revoke", CompromisedForm(posted(request)), question, _harm
        )

    def _key(self, request: HttpRequest, object_id: str, kid: str) -> tuple[Agent, AgentKey]:
        agent = self.get_row(request, object_id, to_change=True)
        key = agent.keys.filter(pk=kid).first()
        if key is None:
            raise Http404
        return agent, key


def _by_status(ids: Sequence[Any]) -> Sequence[tuple[str, str]]:
    """Return how many of the agents have which status."""
    rows = Agent.objects.filter(pk__in=ids).order_by().values_list("status", flat=True)
    counts = sorted(Counter(rows).items())
    return (("Now", ", ".join(f"{count} {status}" for status, count in counts)),)


def _harm(ids: Sequence[Any]) -> Sequence[tuple[str, str]]:
    """Return what suspending or revoking the agents does."""
    return (*_by_status(ids), (EFFECT, impact.of_agents(ids)))
