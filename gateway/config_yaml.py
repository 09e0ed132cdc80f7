"""The configuration file before validation: YAML, environment variables, and rules that concern several settings.

Those rules are checked on the plain tree, whatever else is wrong in it, so that no mistake hides another.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import yaml

from gateway.errors import Mistake

DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_VARIABLE: Final = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Rejects a repeated key, of which PyYAML would keep the last one: a whole workspace could be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} appears twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def parse(text: bytes) -> Any:
    """The tree of a YAML document.

    Raises:
        yaml.YAMLError: it is not valid; `describe` says why in one line.
    """
    return yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a SafeLoader


def describe(error: yaml.YAMLError) -> str:
    """What is wrong, at which line and column."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{what} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def expand(value: Any, environ: Mapping[str, str], path: str, mistakes: list[Mistake]) -> Any:
    """Replace `${NAME}` in every string, and `$$` by one `$`. A variable that is not set is added to `mistakes`."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        if name not in environ:
            mistakes.append(
                Mistake(path, f"the environment variable {name} is not set: set it, or write the value itself")
            )
        return environ.get(name, "")

    match value:
        case str():
            return _VARIABLE.sub(replace, value)
        case dict():
            return {k: expand(v, environ, f"{path}.{k}" if path else str(k), mistakes) for k, v in value.items()}
        case list():
            return [expand(v, environ, f"{path}[{i}]", mistakes) for i, v in enumerate(value)]
        case _:
            return value


def mistakes_between_parts(tree: Mapping[Any, Any], plans: Iterable[str]) -> Iterator[Mistake]:
    """Mistakes that concern several settings; `plans` are the names of the plans that always exist."""
    jwt = _mapping(tree.get("api")).get("jwt")
    if isinstance(jwt, Mapping) and (jwt.get("secret") is None) == (jwt.get("jwks_url") is None):
        yield Mistake("api.jwt", "set exactly one of 'secret' and 'jwks_url'")
    known = {*plans, *map(str, _mapping(tree.get("plans")))}
    owners: dict[str, str] = {}
    for slug, workspace in _mapping(tree.get("workspaces")).items():
        plan = _mapping(workspace).get("plan")
        if isinstance(plan, str) and plan not in known:
            yield Mistake(
                f"workspaces.{slug}.plan", f"{plan!r} is not a plan: choose one of {', '.join(sorted(known))}"
            )
        yield from _repeated(str(slug), _mapping(workspace).get("tokens"), owners)


def _repeated(slug: str, tokens: Any, owners: dict[str, str]) -> Iterator[Mistake]:
    """Ids that appear twice in a workspace, and digests that appear twice in the file; adds new ones to `owners`."""
    ids: set[str] = set()
    for i, token in enumerate(tokens if isinstance(tokens, list) else []):
        token_id, digest = _mapping(token).get("id"), _mapping(token).get("sha256")
        if isinstance(token_id, str) and token_id:
            if token_id in ids:
                problem = f"two tokens have the id {token_id!r}: give each token of a workspace its own id"
                yield Mistake(f"workspaces.{slug}", problem)
            ids.add(token_id)
        if isinstance(digest, str) and DIGEST.fullmatch(digest):
            own = f"{slug}/{token_id}"
            owner = owners.setdefault(digest, own)
            if owner != own:
                problem = f"is already used by the token {owner}: create a new one with `callscope token`"
                yield Mistake(f"workspaces.{slug}.tokens[{i}].sha256", problem)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
