"""``webhooks``: its keys, and what the table of keys cannot say about them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from ..core.webhooks import Hook, Notice, key_of
from .schema_kinds import Key, Listed, Named, OneOf, Read, Section, Text
from .yaml_nodes import Problems, Scalar

WEBHOOKS = Named(
    "<name>",
    Section(
        {
            "url": Key(Text("URL"), "where the events are posted, http or https", required=True),
            "secret": Key(
                Text("`${NAME}`"),
                "the variable that holds what they are signed with, `whsec_...`",
                required=True,
            ),
            "events": Key(Listed(OneOf(Notice)), "which of them", "all"),
        }
    ),
)


def webhooks(read: Read | None, problems: Problems) -> tuple[Hook, ...]:
    """The webhooks of a file; every mistake goes to ``problems``."""
    found = [_hook(name, entry, problems) for name, entry in (read.value if read else {}).items()]
    return tuple(one for one in found if one is not None)


def _hook(name: str, entry: Read, problems: Problems) -> Hook | None:
    fields: Mapping[str, Read] = entry.value
    url = _url(fields.get("url"), problems)
    key = _key(fields.get("secret"), problems)
    if url is None or key is None:
        return None
    notices = frozenset(Notice)
    if "events" in fields:
        notices = frozenset(one.value for one in fields["events"].value)
    return Hook(name, url, key, notices)


def _url(read: Read | None, problems: Problems) -> str | None:
    if read is None:
        return None
    try:
        parts = urlsplit(read.value)
        if parts.username or parts.password:
            problems.at(read.node, "holds a password: leave it out, the signature says who sends")
            return None
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return str(read.value)
    except ValueError:
        pass
    problems.at(read.node, "must be a URL such as https://host/path")
    return None


def _key(read: Read | None, problems: Problems) -> bytes | None:
    if read is None:
        return None
    if not (isinstance(read.node, Scalar) and read.node.expanded):
        problems.at(read.node, "must come from the environment: write ${NAME}")
        return None
    key = key_of(read.value)
    if key is None:
        problems.at(
            read.node,
            "must be whsec_ and the base64 of 24 to 64 bytes; make one with: "
            'echo "whsec_$(openssl rand -base64 32)"',
        )
    return key
