"""trunkline.yaml to settings. Every mistake is found before any is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..catalog import (
    Provider,
    Realtime,
    Wire,
    canonical,
    chat_options,
    is_provider,
    names,
    no_options,
    provider,
    served_by,
)
from ..catalog.pricelist import shipped
from ..core.budgets import MILLION
from ..core.models import CASCADE, AfterOutput, Deadlines, Hedge, Modality, ProbeInput
from ..core.names import did_you_mean
from ..errors import ConfigError, UnknownModel, UsageError
from .environment import configured, gateway_keys, installed, keyless, looked_up, stacks
from .gates import budgets, limits
from .resolve import AUTO, connection_for
from .schema import ROOT, Read
from .settings import (
    Connection,
    Connections,
    GatewaySettings,
    ModelChoice,
    Route,
    Secret,
    Settings,
    Stack,
    after_output_of,
)
from .webhooks import webhooks
from .yaml_nodes import MAX_BYTES, Node, Problems, Scalar, Table, read_tree

LOCAL_STACK = "local"
_SCHEMES = frozenset({"http", "https", "ws", "wss"})


def load(path: Path, env: Mapping[str, str]) -> Settings:
    """Read a trunkline.yaml. ``env`` is where ``${NAME}`` and the providers' variables are found.

    Raises ConfigError with every mistake, each with file, line, key and the nearest valid name.
    """
    problems = Problems(str(path))
    root = read_tree(_text(path), env, problems)
    if root is None:
        problems.raise_any()
        raise ConfigError([f"{path}: the file is empty; it starts with version: 1"])
    read = ROOT.read(root, problems)
    if read is None:
        problems.raise_any()
        raise ConfigError([f"{path}: cannot be read as settings"])
    settings = _File(path, env, problems).settings(read)
    problems.raise_any()
    return settings


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            wrong = "is not a file" if path.exists() else "does not exist"
            raise ConfigError([f"{path}: {wrong}"])
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                [f"{path}: larger than {MAX_BYTES:,} bytes; that is no settings file"]
            )
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        told = f"{path}:{line}: not UTF-8; save the file with that encoding"
        raise ConfigError([told]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None


class _File:
    """What the table of keys cannot say: names that must exist, and fit each other."""

    def __init__(self, path: Path, env: Mapping[str, str], problems: Problems) -> None:
        self._path = path
        self._env = env
        self._problems = problems
        self._connections: Mapping[str, Connection] = {}
        self._undone: set[str] = set()
        """Names of providers and routes that have a problem of their own already."""

    def settings(self, root: Read) -> Settings:
        top: Mapping[str, Read] = root.value
        chosen = self._providers(top.get("providers"), root.node)
        # where the file lists its connections, what an installed provider needs is listed too
        elsewhere = {} if "providers" in top else self._env
        self._connections = Connections({**keyless(), **chosen}, installed(elsewhere))
        routes = self._routes(top.get("routes"))
        own = self._stacks(top.get("stacks"), routes)
        all_stacks = {**stacks(chosen.values()), **own}
        org, project = _project(top.get("project"))
        return Settings(
            self._connections,
            routes,
            all_stacks,
            org,
            project,
            self._state(top.get("state")),
            self._gateway(top.get("gateway"), routes, all_stacks),
            budgets(top.get("budgets"), routes, self._problems),
            limits(top.get("limits"), self._problems),
            webhooks(top.get("webhooks"), self._problems),
        )

    def _gateway(
        self, read: Read | None, routes: Mapping[str, Route], stacks: Mapping[str, Stack]
    ) -> GatewaySettings:
        fields: Mapping[str, Read] = read.value if read else {}
        plain = ("host", "port", "decisions")
        given: dict[str, Any] = {n: fields[n].value for n in plain if n in fields}
        decides = fields.get("decisions")
        if decides is not None and decides.value != AUTO and decides.value not in stacks:
            self._member(decides, Modality.LLM, routes)
        if "bearer" in fields:
            given["bearer"] = tuple(Secret(key.value) for key in fields["bearer"].value)
        keys = gateway_keys(self._env)
        if "keys" in fields:
            keys = {key: Secret(secret.value) for key, secret in fields["keys"].value.items()}
        return GatewaySettings(keys, **given)

    def _state(self, read: Read | None) -> Path | None:
        if read is None:
            return None
        text: str = read.value
        home = self._env.get("HOME")
        if home and (text == "~" or text.startswith("~/")):
            return Path(home) / text[2:]
        return self._path.parent / text

    def _providers(self, read: Read | None, root: Node) -> dict[str, Connection]:
        if isinstance(root, Table):
            section = root.entries.get("providers")
            if isinstance(section, Table):
                self._undone |= section.entries.keys()
        if read is None:
            return configured(self._env)
        chosen: dict[str, Connection] = {}
        for name, entry in read.value.items():
            connection = self._provider(name, entry)
            if connection is not None and connection.name in chosen:
                self._problems.at(entry.node, f'the same provider as "{connection.name}"')
            elif connection is not None:
                chosen[connection.name] = connection
        return chosen

    def _provider(self, name: str, entry: Read) -> Connection | None:
        fields: dict[str, Read] = dict(entry.value)
        kind = fields.pop("kind", None)
        try:
            row = provider(kind.value if kind else name)
        except UsageError as error:
            self._told(kind.node if kind else entry.node, error)
            return None
        if not self._well_named(name, entry.node):
            return None
        if is_provider(name) and canonical(name) != row.name:
            self._problems.at(entry.node, f'"{name}" is a provider of its own; take another name')
            return None
        url = fields.pop("base_url", None)
        options = fields.pop("options", None)
        tier, region = self._account(row, fields.pop("tier", None), fields.pop("region", None))
        credentials = self._credentials(row, entry, fields, elsewhere=url is not None)
        connection = Connection(
            row.name if kind is None else name,
            row.name,
            credentials,
            self._url(url),
            self._options(row, options),
            tier=tier,
            region=region,
        )
        self._undone -= {name, connection.name}
        return connection

    def _account(self, row: Provider, *given: Read | None) -> tuple[str, str]:
        """The tier and region of an account. What is all but one that has prices is a mistake."""
        found: list[str] = []
        for field, read in zip(("tier", "region"), given, strict=True):
            value = read.value if read is not None else ""
            if read is not None:
                asked = {getattr(one, field) for one in shipped().prices(row.name)} - {""}
                known = {one for one in asked if not one.startswith("+")}  # these, options ask for
                near = did_you_mean(value, known) if value not in known else ""
                if near:
                    self._problems.at(read.node, f'{row.name} has no prices for "{value}"{near}')
            found.append(value)
        tier, region = found
        return tier, region

    def _credentials(
        self, row: Provider, entry: Read, given: Mapping[str, Read], *, elsewhere: bool
    ) -> dict[str, Secret]:
        names = {c.name for c in row.credentials}
        assert isinstance(entry.node, Table)
        for name, node in entry.node.entries.items():
            if name in given and name not in names:
                near = did_you_mean(name, (*names, "kind", "base_url", "options", "tier", "region"))
                line = entry.node.key_lines[name]
                self._problems.add(line, node.path, f'unknown key "{name}" of {row.name}{near}')
        found: dict[str, Secret] = {}
        for credential in row.credentials:
            read = given.get(credential.name)
            value = read.value if read else looked_up(credential, self._env)
            if value:
                found[credential.name] = Secret(value)
            elif credential.name not in entry.node.entries and not (
                elsewhere and credential.optional_elsewhere
            ):
                self._problems.at(
                    entry.node,
                    f"{credential.name} is missing; set it here or in the variable "
                    f"{credential.variables[0]}",
                )
        return found

    def _url(self, read: Read | None) -> str | None:
        if read is None:
            return None
        try:
            parts = urlsplit(read.value)
            if parts.scheme in _SCHEMES and parts.hostname and parts.port != 0:
                return str(read.value).rstrip("/")
        except ValueError:
            pass
        self._problems.at(read.node, "must be a URL such as https://host/v1")
        return None

    def _options(self, row: Provider, read: Read | None) -> dict[Modality, Mapping[str, Any]]:
        options: dict[Modality, Mapping[str, Any]] = {}
        for name, entry in (read.value if read else {}).items():
            modality = Modality(name)
            if self._fits(row, modality, entry.node) and self._chat(row, modality, entry):
                options[modality] = entry.value
        return options

    def _routes(self, read: Read | None) -> dict[str, Route]:
        found: dict[str, Route] = {}
        for name, entry in (read.value if read else {}).items():
            self._undone.add(name)
            fields: Mapping[str, Read] = entry.value
            if not self._free(name, entry.node) or "modality" not in fields:
                continue
            modality: Modality = fields["modality"].value
            listed = fields["candidates"].value if "candidates" in fields else ()
            choices = [self._choice(candidate, modality) for candidate in listed]
            kept = tuple(choice for choice in choices if choice is not None)
            deadlines = fields["deadlines"].value if "deadlines" in fields else {}
            after = fields.get("after_output")
            if after and modality is Modality.TTS and after.value is AfterOutput.RESTART:
                self._problems.at(
                    after.node, '"restart" means nothing for tts: "continue" or "stop"'
                )
            self._means_something("after_output", {Modality.LLM, Modality.TTS}, modality, fields)
            self._means_something("probe", {Modality.LLM}, modality, fields)
            self._means_something("apology", {Modality.LLM, Modality.TTS}, modality, fields)
            self._means_something("hedge", {Modality.LLM, Modality.TTS}, modality, fields)
            if "hedge" in fields and len(listed) == 1:
                self._problems.at(fields["hedge"].node, "needs a second candidate")
            found[name] = Route(
                name,
                modality,
                kept,
                Deadlines(**{phase: seconds.value for phase, seconds in deadlines.items()}),
                after.value if after else after_output_of(modality),
                fields["probe"].value if "probe" in fields else ProbeInput.TINY,
                fields["apology"].value if "apology" in fields else "",
                _hedge(fields.get("hedge")),
            )
        return found

    def _means_something(
        self, key: str, to: set[Modality], modality: Modality, fields: Mapping[str, Read]
    ) -> bool:
        if key in fields and modality not in to:
            self._problems.at(fields[key].node, f"means nothing for {modality}")
            return False
        return True

    def _choice(self, read: Read, modality: Modality) -> ModelChoice | None:
        if isinstance(read.value, str):
            return self._model(read, modality, read.value)
        fields: Mapping[str, Read] = read.value
        if "model" not in fields:
            return None
        for key, meant in (("voice", {Modality.TTS}), ("language", {Modality.STT, Modality.TTS})):
            if not self._means_something(key, meant, modality, fields):
                return None
        return self._model(
            fields["model"],
            modality,
            fields["model"].value,
            voice=fields["voice"].value if "voice" in fields else "",
            language=fields["language"].value if "language" in fields else "",
            options=fields.get("options"),
        )

    def _model(
        self,
        read: Read,
        modality: Modality,
        text: str,
        *,
        voice: str = "",
        language: str = "",
        options: Read | None = None,
    ) -> ModelChoice | None:
        """A reference that something configured serves in this modality."""
        given = options.value if options else {}
        try:
            choice = ModelChoice.of(text, modality, voice=voice, language=language, options=given)
            if {choice.ref.provider, canonical(choice.ref.provider)} & self._undone:
                return None
            connection = connection_for(self._connections, choice.ref.provider)
        except UsageError as error:
            self._told(read.node, error)
            return None
        row = provider(connection.provider)
        if not self._fits(row, modality, read.node):
            return None
        if options is not None and not self._chat(row, modality, options):
            return None
        return choice

    def _fits(self, row: Provider, modality: Modality, node: Node) -> bool:
        try:
            served_by(row, modality)
        except UnknownModel as error:
            self._told(node, error)
            return False
        return True

    def _chat(self, row: Provider, modality: Modality, options: Read) -> bool:
        """The options of our own clients are known here; a plugin's when it is built."""
        how = served_by(row, modality)
        try:
            if isinstance(how, Wire):
                chat_options(row, how, options.value)
            elif isinstance(how, Realtime):
                no_options(row, options.value)
        except UsageError as error:
            self._told(options.node, error)
            return False
        return True

    def _stacks(self, read: Read | None, routes: Mapping[str, Route]) -> dict[str, Stack]:
        found: dict[str, Stack] = {}
        for name, entry in (read.value if read else {}).items():
            if name == LOCAL_STACK:
                self._problems.at(entry.node, f'"{name}" is built in; take another name')
            elif name in routes:
                self._problems.at(entry.node, f'"{name}" is a route already; take another name')
            elif self._free(name, entry.node):
                fields: Mapping[str, Read] = entry.value
                for modality in CASCADE:
                    if modality.value in fields:
                        self._member(fields[modality.value], modality, routes)
                members = {key: member.value for key, member in fields.items()}
                found[name] = Stack(name, *(members.get(m.value, "") for m in CASCADE))
        return found

    def _member(self, read: Read, modality: Modality, routes: Mapping[str, Route]) -> None:
        name: str = read.value
        route = routes.get(name)
        if route is not None:
            if route.modality is not modality:
                self._problems.at(read.node, f'route "{name}" is for {route.modality}')
        elif name in self._undone:
            return
        elif "/" in name or ":" in name or is_provider(name) or name in self._connections:
            self._model(read, modality, name)
        else:
            near = did_you_mean(name, (*routes, *self._connections, *names()))
            told = read.node if isinstance(read.node, Scalar) else name
            self._problems.at(read.node, f"{told} is no route or model reference{near}")

    def _free(self, name: str, node: Node) -> bool:
        if not self._well_named(name, node):
            return False
        if is_provider(name) or name in self._connections:
            self._problems.at(node, f'"{name}" is the name of a provider; take another name')
            return False
        return True

    def _well_named(self, name: str, node: Node) -> bool:
        if name == AUTO:
            self._problems.at(node, f'"{AUTO}" means the stack "default"; take another name')
        elif not name or any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
            self._problems.at(node, "a name holds no blank, slash or colon")
        else:
            return True
        return False

    def _told(self, node: Node, error: UsageError) -> None:
        """Tell an error of a lookup, unless it would quote what came from the environment."""
        if isinstance(node, Scalar) and node.expanded:
            self._problems.at(node, f"{node} gives nothing that is known here")
        else:
            self._problems.at(node, str(error))


def _hedge(read: Read | None) -> Hedge | None:
    if read is None:
        return None
    fields: Mapping[str, Read] = read.value
    share = fields["share"].value / MILLION if "share" in fields else Hedge().share
    return Hedge(fields["after"].value if "after" in fields else None, share)


def _project(read: Read | None) -> tuple[str, str]:
    if read is None:
        return "default", "default"
    if isinstance(read.value, str):
        return "default", read.value
    fields: Mapping[str, Read] = read.value
    named: Iterable[str] = (
        fields[key].value if key in fields else "default" for key in ("org", "name")
    )
    org, name = named
    return org, name
