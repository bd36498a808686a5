"""The API describes itself, validly, and its page fetches nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
import yaml
from django.core.management import call_command

from registry.trail.reading.filters import PARAMETERS


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Fails on the first warning."""
    path = tmp_path_factory.mktemp("schema") / "schema.yml"
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(path))
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", ["", "export", "feed", "{index}/"])
def test_it_describes_every_parameter_with_an_example(schema: dict[str, Any], path: str) -> None:
    operation = schema["paths"][f"/api/v1/provenance/{path}"]["get"]
    assert operation["parameters"]
    for parameter in operation["parameters"]:
        assert re.search(r"\w.*\. Example: `.+`", parameter["description"], re.S), parameter["name"]


@pytest.mark.parametrize("path", ["", "export", "feed"])
def test_it_lists_every_filter(schema: dict[str, Any], path: str) -> None:
    parameters = schema["paths"][f"/api/v1/provenance/{path}"]["get"]["parameters"]
    assert {each.name for each in PARAMETERS} <= {each["name"] for each in parameters}


def test_it_offers_no_way_to_write_the_trail(schema: dict[str, Any]) -> None:
    """Only the files of exports can be made and deleted."""
    ours = {path: set(item) for path, item in schema["paths"].items() if "provenance" in path}
    written = {path: methods - {"get"} for path, methods in ours.items() if methods != {"get"}}
    assert len(ours) == 7
    assert written == {
        "/api/v1/provenance/exports/": {"post"},
        "/api/v1/provenance/exports/{name}/": {"delete"},
    }


def test_its_page_fetches_nothing_from_elsewhere(hub: Any) -> None:
    page = httpx.get(f"{hub.http_url}/api/docs/")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert addresses
    assert [each for each in addresses if re.match(r"(?:https?:)?//", each)] == []
    for address in addresses:
        assert httpx.get(f"{hub.http_url}{address}").status_code == 200, address
    assert httpx.get(f"{hub.http_url}/api/schema/").status_code == 200
