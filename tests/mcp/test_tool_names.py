"""Tool names: the first `__` splits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import MAX_SLUG, SLUG
from gateway.mcp import tool_names

slugs = st.from_regex(SLUG, fullmatch=True).filter(lambda slug: len(slug) <= MAX_SLUG)


@given(slugs, st.text(min_size=1))
def test_what_was_joined_is_split_into_the_same_for_every_slug_of_the_configuration(slug: str, tool: str) -> None:
    assert tool_names.split(tool_names.join(slug, tool)) == (slug, tool)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("github__create_issue", ("github", "create_issue")),
        ("a__b__c", ("a", "b__c")),
        ("a___b", ("a", "_b")),
        ("a____", ("a", "__")),
    ],
)
def test_the_first_separator_counts(name: str, parts: tuple[str, str]) -> None:
    assert tool_names.split(name) == parts


@pytest.mark.parametrize("name", ["", "create_issue", "github_create", "__", "__tool", "github__"])
def test_a_name_without_a_server_or_without_a_tool_is_none_of_the_gateways(name: str) -> None:
    assert tool_names.split(name) is None
