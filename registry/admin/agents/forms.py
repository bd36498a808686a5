"""The forms that register and change agents and approve their keys."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import RegexValidator

from registry.admin.fields import LinesField, reason_field
from registry.agents.models import (
    AGENT_ID_PATTERN,
    LEVEL_CHOICES,
    SENSITIVITY_CHOICES,
    Agent,
    Organisation,
)

NAMES_HELP = "Write one a line, in lower case, with parts joined by dots: finance.report.read"


class AgentForm(forms.Form):
    """The fields of an agent's registration."""

    organisation = forms.ModelChoiceField(queryset=Organisation.objects.all(), empty_label=None)
    owner_name = forms.CharField(label="Owner", max_length=120, help_text="The person to call.")
    owner_contact = forms.CharField(
        required=False, max_length=200, help_text="Mail address or telephone number of the owner."
    )
    description = forms.CharField(
        required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2})
    )
    declared_capabilities = LinesField(
        required=False,
        help_text=f"What the agent says that it can do; it proves nothing. {NAMES_HELP}",
    )
    tags = LinesField(
        required=False, rows=2, help_text="Labels that policy rules can test. New ones are created."
    )
    sensitivity_floor = forms.ChoiceField(
        choices=SENSITIVITY_CHOICES,
        help_text="Everything that this agent sends or receives counts as at least this sensitive.",
    )
    minimum_level = forms.ChoiceField(
        required=False,
        choices=[("", "any"), *LEVEL_CHOICES],
        help_text="The hub denies mail to this agent from senders with a lower trust level.",
    )
    minimum_score = forms.IntegerField(
        min_value=0,
        max_value=100,
        initial=0,
        help_text="The hub denies mail to this agent from senders with a lower score.",
    )


class NewAgentForm(AgentForm):
    """The form that registers an agent."""

    id = forms.CharField(
        label="Agent id",
        max_length=128,
        validators=[
            RegexValidator(
                AGENT_ID_PATTERN,
                "Use lower-case letters, digits, dot, underscore and hyphen; start with a letter or"
                " a digit.",
            )
        ],
        help_text="For example financial-analyzer-001. It can't be changed later.",
    )
    parent = forms.CharField(
        required=False, max_length=128, help_text="The id of the agent that spawned it, if any."
    )
    field_order = ("id", "organisation", "owner_name", "owner_contact", "description")

    def clean_parent(self) -> Agent | None:
        """Return the agent with the typed id; `None` if the field is empty."""
        wanted = self.cleaned_data["parent"].strip()
        parent = Agent.objects.filter(pk=wanted).first() if wanted else None
        if wanted and parent is None:
            raise forms.ValidationError("There is no agent with this id.")
        return parent


class ChangeAgentForm(AgentForm):
    """The form that changes an agent; the id can't change."""

    reason = reason_field()

    @classmethod
    def initial_of(cls, agent: Agent) -> dict[str, Any]:
        """Return the agent's present values for the form."""
        return {
            "organisation": agent.organisation_id,
            "owner_name": agent.owner_name,
            "owner_contact": agent.owner_contact,
            "description": agent.description,
            "declared_capabilities": agent.declared_capabilities,
            "tags": [tag.name for tag in agent.tags.all()],
            "sensitivity_floor": agent.sensitivity_floor,
            "minimum_level": agent.minimum_level,
            "minimum_score": agent.minimum_score,
        }


class ApproveKeyForm(forms.Form):
    """The form that approves a key: the officer confirms that the fingerprint was compared."""

    compared = forms.BooleanField(
        label="The owner read me this same fingerprint",
        help_text="Use a way that you trust, such as a call or a visit. A message through the"
        " agent itself proves nothing.",
        error_messages={"required": "Compare the fingerprint before you approve it."},
    )
    revoke_earlier = forms.BooleanField(
        required=False,
        label="Revoke the agent's earlier key",
        help_text="Tick this if the earlier key was lost or stolen. Otherwise it is retired. It"
        " can't sign any more in both cases.",
    )
    reason = reason_field(required=False, help_text="Kept in the trail, if you give one.")
