"""Whatever opens a provider stands behind the gate: read from the code, so none is forgotten.

An opener is a call that makes a provider's client do something (``stream``, ``chat``,
``recognize``, ``synthesize``, ``prewarm``) or that makes a connection. The function around it must
be a line's ``open``, which the engine calls after it has reserved, or be called by such functions
alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from test_architecture import Source, repository

OPENERS = {"stream", "chat", "recognize", "synthesize", "prewarm"}
CONNECTORS = {
    *("ClientSession", "open_connection", "create_connection", "urlopen", "ws_connect"),
    *("HTTPConnection", "HTTPSConnection", "AsyncClient", "Client", "AsyncOpenAI"),
}
OWN = {"self", "cls", "super()"}
"""Receivers whose ``stream`` is our own wrapper's, which begins an engine run."""

APART = ("engines/", "doubles/", "cli/", "runtime/wire_llm.py", "runtime/wire_realtime.py")
"""Servers and engines of this machine; the demo's caller; the lean clients, which are plugins of
ours: who calls their ``stream`` and ``prewarm`` is looked at here."""

GATE = "may_open"
"""What a function asks before it opens without an attempt, to have a connection in hand."""


@dataclass
class Function:
    """A function, the class it is a method of, and the calls in it."""

    path: str
    owner: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    calls: list[ast.Call] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.path} {self.owner}.{self.node.name}".replace(" .", " ")


class House:
    """All functions and classes of some sources."""

    def __init__(self, sources: list[Source]) -> None:
        self.functions: list[Function] = []
        self.bases: dict[str, set[str]] = {}
        self.imported: dict[str, set[str]] = {}
        for source in sources:
            if not source.path.startswith(APART):
                self.imported[source.path] = {found.name for found in source.imports()}
                self._read(source.path, source.tree, "", None)

    def _read(self, path: str, node: ast.AST, owner: str, inside: Function | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                bases = self.bases.setdefault(child.name, set())
                bases |= {_last(base) for base in child.bases}
                self._read(path, child, child.name, None)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and inside is None:
                self.functions.append(function := Function(path, owner, child))
                self._read(path, child, owner, function)
            else:
                if isinstance(child, ast.Call) and inside is not None:
                    inside.calls.append(child)
                self._read(path, child, owner, inside)

    def breaches(self) -> Iterator[str]:
        for function in self.functions:
            for call in function.calls:
                if _opens(call) and not self._is_behind(function, []):
                    yield f"{function}: {ast.unparse(call.func)} opens a provider past the gate"

    def _is_behind(self, function: Function, above: list[Function]) -> bool:
        """Whether only the engine, after it has reserved, leads to ``function``.

        An object that is made behind the gate alone, such as a provider's stream, stays there.
        """
        if function in above:
            return True
        name, owner = function.node.name, function.owner
        if name == "open" and "Line" in self._family(owner):
            return True
        if any(_last(call.func) == GATE for call in function.calls):
            return True
        ways = [self.made(function.path, owner or name)]
        if owner and name != "__init__":
            ways.append(self.called_by_self(function))
        above = [*above, function]
        return any(way and all(self._is_behind(o, above) for o in way) for way in ways)

    def made(self, home: str, name: str) -> list[Function]:
        """Who calls the function, or makes the class, ``name`` of the file ``home``."""
        return [
            function
            for function in self.functions
            if any(self._names(function.path, call.func, home, name) for call in function.calls)
        ]

    def called_by_self(self, method: Function) -> list[Function]:
        """The methods of the same family that call ``method``."""
        family, called = self._family(method.owner), f"self.{method.node.name}"
        return [
            function
            for function in self.functions
            if function is not method and self._family(function.owner) & family
            if any(ast.unparse(call.func) == called for call in function.calls)
        ]

    def _names(self, path: str, called: ast.expr, home: str, name: str) -> bool:
        """Whether what is ``called`` in ``path`` is the ``name`` of the file ``home``."""
        module = home.rpartition("/")[2].removesuffix(".py")
        known = self.imported[path]
        if isinstance(called, ast.Attribute):
            return called.attr == name and ast.unparse(called.value) == module and module in known
        return _last(called) == name and (path == home or name in known)

    def _family(self, owner: str) -> set[str]:
        """A class with everything it comes from that is ours."""
        found, pending = set[str](), {owner} - {""}
        while pending:
            found.add(one := pending.pop())
            pending |= self.bases.get(one, set()) - found
        return found - {"Protocol", "ABC", "Generic", "Any"}


def _last(node: ast.expr) -> str:
    """The last name of ``a.b.c`` and of ``a.b[c]``."""
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _opens(call: ast.Call) -> bool:
    name = _last(call.func)
    if name in CONNECTORS:
        return True
    if name not in OPENERS or not isinstance(call.func, ast.Attribute):
        return False
    receiver = ast.unparse(call.func.value)
    return receiver not in OWN and "vad" not in receiver


EXCEPTIONS = {
    "runtime/served.py Served.warm_up_soon": "without a loop nothing connects, engines load models",
    "gateway/plans.py Plans._session": "a pool for plugins, which opens nothing by itself",
    "runtime/webhooks.py Webhooks._post": "the user's own address, which is no provider's",
    "gateway/stt.py Hearing.__init__": "the engine's own recogniser, whose streams are its runs",
}


def test_everything_that_opens_a_provider_stands_behind_the_gate() -> None:
    found = list(House(repository()).breaches())
    told = {breach: breach.partition(": ")[0] for breach in found}
    assert [breach for breach, where in told.items() if where not in EXCEPTIONS] == []
    assert set(told.values()) == set(EXCEPTIONS), "an exception that is none any more"


def test_what_is_known_to_open_is_seen() -> None:
    """Else the test above could pass because it sees nothing."""
    seen = {f.path for f in House(repository()).functions for call in f.calls if _opens(call)}
    assert seen >= {
        "gateway/chat_line.py",
        "gateway/realtime_line.py",
        "runtime/chat_line.py",
        "runtime/livekit_chat.py",
        "runtime/livekit_recogniser.py",
        "runtime/livekit_segments.py",
        "runtime/livekit_voice.py",
        "runtime/served.py",
    }


LINE = Source("runtime/line.py", "class Line: ...")


@pytest.mark.parametrize(
    "text",
    [
        "async def speak(plugin):\n    plugin.stream()",
        "class Warm:\n    def begin(self, candidate):\n        candidate.live.prewarm()",
        "async def ask(url):\n    async with aiohttp.ClientSession() as session: ...",
        # one caller is a line's, another is not
        "from .line import Line\n"
        "class VoiceLine(Line):\n    def open(self, candidate):\n        return made(candidate)\n"
        "def made(candidate):\n    return candidate.live.stream()\n"
        "def also(candidate):\n    return made(candidate)",
        "class Ears:\n    def __init__(self, plugin):\n        plugin.stream()\n"
        "def listen(plugin):\n    return Ears(plugin)",
    ],
)
def test_a_new_opener_past_the_gate_is_found(text: str) -> None:
    assert list(House([LINE, Source("services/new.py", text)]).breaches())


def test_the_engine_reserves_before_it_opens() -> None:
    """Who calls a line's ``open``, and what stands before that."""
    house = House(repository())
    opening = [
        function
        for function in house.functions
        if any(ast.unparse(call.func) == "line.open" for call in function.calls)
    ]
    assert [str(function) for function in opening] == ["runtime/attempt.py Engine._open"]
    attempts = house.called_by_self(opening[0])
    assert attempts
    for attempt in attempts:
        lines = {ast.unparse(call.func): call.lineno for call in attempt.calls}
        assert lines["self._gate.reserve"] < lines["self._open"]
