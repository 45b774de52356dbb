"""Reading a trunkline.yaml where its secrets are not: on a machine that tests it."""

from __future__ import annotations

import base64
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from ..catalog import PROVIDERS
from .schema import PROVIDER
from .yaml_nodes import Items, Node, Problems, Scalar, Table, read_tree

THROWAWAY = "throw-away"
_SIGNING = "whsec_" + base64.b64encode(bytes(32)).decode()

_NAMED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")


def without_secrets(path: Path, env: MutableMapping[str, str]) -> Mapping[str, str]:
    """``env`` with a throw-away for every variable that holds a secret of the file or a provider.

    Theirs are not read, whether they are set or not; what else the file takes from ``env`` is. A
    file that cannot be read changes nothing: ``load`` tells what is wrong with it.
    """
    names = {v for row in PROVIDERS.values() for c in row.credentials for v in c.variables}
    try:
        root = read_tree(path.read_text("utf-8-sig"), _Anything(), Problems(str(path)))
    except (OSError, UnicodeDecodeError):
        root = None
    for secret in _secrets(root):
        names.update(_NAMED.findall(secret.raw))
    signing = {name for secret in _signing(root) for name in _NAMED.findall(secret.raw)}
    given = {**dict.fromkeys(names, THROWAWAY), **dict.fromkeys(signing, _SIGNING)}
    return ChainMap(given, env)


def _secrets(root: Node | None) -> Iterator[Scalar]:
    top = root.entries if isinstance(root, Table) else {}
    providers = top.get("providers")
    for entry in providers.entries.values() if isinstance(providers, Table) else ():
        for name, node in entry.entries.items() if isinstance(entry, Table) else ():
            if name not in PROVIDER.keys:  # then it is a credential
                yield from _texts(node)
    gateway = top.get("gateway")
    for name, node in gateway.entries.items() if isinstance(gateway, Table) else ():
        if name in ("keys", "bearer"):
            yield from _texts(node)


def _signing(root: Node | None) -> Iterator[Scalar]:
    top = root.entries if isinstance(root, Table) else {}
    hooks = top.get("webhooks")
    for entry in hooks.entries.values() if isinstance(hooks, Table) else ():
        if isinstance(entry, Table) and "secret" in entry.entries:
            yield from _texts(entry.entries["secret"])


def _texts(node: Node) -> Iterator[Scalar]:
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Items):
        for inner in node.items:
            yield from _texts(inner)
    elif isinstance(node, Table):
        for inner in node.entries.values():
            yield from _texts(inner)


class _Anything(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, _name: str, _default: object = None) -> str:
        return THROWAWAY
