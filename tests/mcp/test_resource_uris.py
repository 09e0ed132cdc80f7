"""Which server a resource's URI belongs to."""

import pytest

from gateway.mcp.resource_uris import Offered, ResourceRoutes

FILES = Offered("files", ["file:///a", "file:///b"], ["file:///{+path}"])
TICKETS = Offered("tickets", ["ticket://1", "file:///b"], ["ticket://{id}", "ticket://{id}/comments/{comment}"])
ROWS = Offered("rows", [], ["db://{table}/rows", "file:///rows/{+path}", "{broken", "x://{a}{b}"])
ROUTES = ResourceRoutes([FILES, TICKETS, ROWS])


@pytest.mark.parametrize(
    ("uri", "slug"),
    [
        pytest.param("file:///a", "files", id="listed by one"),
        pytest.param("ticket://1", "tickets", id="listed, and a template matches too"),
        pytest.param("file:///b", "files", id="listed by two: the file's order"),
        pytest.param("file:///c/d.txt", "files", id="RFC 6570 level 2"),
        pytest.param("ticket://77", "tickets", id="RFC 6570 level 1"),
        pytest.param("ticket://77/comments/5", "tickets", id="RFC 6570 two variables"),
        pytest.param("db://a%20b/rows", "rows", id="RFC 6570 percent-encoded"),
        pytest.param("file:///rows/1", "files", id="two templates: the file's order"),
    ],
)
def test_a_uri_goes_to_the_server_that_lists_it_or_has_a_template_for_it(uri: str, slug: str) -> None:
    assert ROUTES.route(uri) == slug
    assert ROUTES.candidates(uri)[0] == slug


@pytest.mark.parametrize(
    "uri",
    [
        "ticket://77/comments",
        "db://a/b/rows",
        "db://a/rows/1",
        "x://ab",
        "",
        "broken",
        pytest.param("t:" * 70_000, id="too long"),
    ],
)
def test_a_uri_that_nobody_knows_belongs_to_no_one_of_several_servers_but_each_may_be_asked(uri: str) -> None:
    assert ROUTES.route(uri) is None
    assert ROUTES.candidates(uri) == ("files", "tickets", "rows")


def test_a_uri_that_nobody_knows_belongs_to_the_only_server() -> None:
    assert ResourceRoutes([Offered("only")]).route("link://of-a-tool") == "only"
    assert ResourceRoutes([]).route("link://of-a-tool") is None
    assert ResourceRoutes([]).candidates("link://of-a-tool") == ()


def test_every_server_that_knows_a_uri_is_a_candidate_and_no_other() -> None:
    assert ROUTES.candidates("file:///b") == ("files", "tickets")
    assert ROUTES.candidates("file:///rows/1") == ("files", "rows")
    assert ROUTES.candidates("ticket://77") == ("tickets",)


@pytest.mark.parametrize("template", ["{", "{}", "{a}{b}", "{+a}{+b}", pytest.param("x" * 10_000, id="too long")])
def test_a_template_that_cannot_be_matched_is_passed_over(template: str) -> None:
    assert ResourceRoutes([Offered("a", [], [template, "t://{id}"]), Offered("b")]).route("t://1") == "a"
