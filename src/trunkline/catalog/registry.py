"""From a name to a row, and from a row to an instance of the provider's plugin.

A plugin is imported when the first candidate needs it. Every credential is given explicitly: what
a plugin or its vendor's client would read from the environment belongs to somebody else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core.models import Modality
from ..core.names import did_you_mean
from ..errors import MissingCredential, MissingExtra, UnknownModel, UnsupportedOption
from . import installed
from .model import Plugin, Provider, Realtime, Wire
from .option_types import Misfit, fitted
from .providers import ALIASES, LOCAL, PREFERRED, PROVIDERS
from .quirks import CHAT_PARAMS, OPENAI_CLIENT

if TYPE_CHECKING:
    import aiohttp

_NAMES = {
    Modality.STT: "language",
    Modality.LLM: "suffix",
    Modality.TTS: "voice",
    Modality.REALTIME: "suffix",
}
_RESERVED = frozenset({"self", "http_session", "client", "base_url"})
_NO_KEY = "none"


def canonical(name: str) -> str:
    """The catalogue's own name for a provider or an alias of it; other names as they are."""
    return ALIASES.get(name, name)


def names() -> tuple[str, ...]:
    """Every name of a provider: the built-in ones, their aliases, and those of installed rows."""
    return (*PROVIDERS, *ALIASES, *installed.offered())


def is_provider(name: str) -> bool:
    """Whether a provider has this name, without importing what is not built in."""
    return name in PROVIDERS or name in ALIASES or name in installed.offered()


def in_use(name: str) -> Provider | None:
    """The row of a provider that is built in or has been used; looks nothing up and never waits."""
    return PROVIDERS.get(name) or installed.in_use.get(name)


def provider(name: str) -> Provider:
    """The row of a provider, by name or alias: built in, else from an installed distribution.

    Raises UnknownModel, naming the nearest, or BrokenPlugin.
    """
    row = PROVIDERS.get(canonical(name)) or installed.row(name)
    if row is None:
        raise UnknownModel(f'unknown provider "{name}"{did_you_mean(name, names())}')
    return row


def served_by(row: Provider, modality: Modality) -> Wire | Plugin | Realtime:
    """How a provider serves a modality. Raises UnknownModel when it does not."""
    how: Wire | Plugin | Realtime | None = getattr(row, modality.value)
    if how is None:
        serves = ", ".join(row.modalities)
        raise UnknownModel(f'provider "{row.name}" does not serve {modality}; it serves {serves}')
    return how


def preferred(modality: Modality, configured: Iterable[str]) -> str:
    """The reference that the default stack uses, given the names of configured providers."""
    given = list(configured)
    ordered = (*PREFERRED[modality], *PROVIDERS, *given)
    rows = (provider(name) for name in ordered if name in given)
    cloud = next((row for row in rows if modality in row.modalities and not row.local), None)
    if cloud is None:
        return LOCAL[modality]
    model = served_by(cloud, modality).default_model
    return f"{cloud.name}/{model}" if model else cloud.name


def chat_options(row: Provider, how: Wire, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the names of a chat's options for our own client.

    Raises UnsupportedOption for one that is no parameter of a chat with this provider.
    """
    known = CHAT_PARAMS | how.extra_params
    for name in options:
        if name not in known:
            raise _unsupported(row, Modality.LLM, name, known)
    return dict(options)


def no_options(row: Provider, options: Mapping[str, Any]) -> None:
    """A realtime session takes its options from its client. Raises UnsupportedOption for others."""
    if options:
        raise UnsupportedOption(
            f'{row.name} (realtime) has no option "{next(iter(options))}": what a session is to be '
            "its client says with session.update"
        )


def build(
    row: Provider,
    modality: Modality,
    model: str = "",
    suffix: str = "",
    *,
    credentials: Mapping[str, str],
    options: Mapping[str, Any],
    base_url: str | None = None,
    http_session: aiohttp.ClientSession | None = None,
    sample_rate: int | None = None,
) -> Any:
    """A new instance of the LiveKit plugin that serves a candidate.

    ``credentials`` holds the values of ``row.credentials`` by name. ``options`` are constructor
    arguments or their aliases, of the types that the constructor names; ``language`` (STT) and
    ``voice`` (TTS) stand for a missing suffix.

    ``http_session`` and ``sample_rate`` (Hz) go to the constructors that take them.

    Raises UnknownModel, MissingExtra, MissingCredential or UnsupportedOption, never a vendor's own
    error, and reads no environment.
    """
    how = served_by(row, modality)
    if not isinstance(how, Plugin):
        raise UnknownModel(f"{row.name} serves {modality} through our own client, not a plugin")
    model = model or how.default_model
    how = how.variant(model)
    secrets = _credentials(row, credentials, base_url)
    options = dict(options)
    arguments = _reference(row, modality, how, model, suffix, options)
    cls = _load(row, how.target)
    accepted = inspect.signature(cls).parameters
    if base_url is not None and "base_url" not in accepted:
        raise UnsupportedOption(f"{row.name} ({modality}) has no base_url to set")
    arguments |= _url(how, base_url)
    known = _known(row, how, accepted.keys() - how.fixed.keys())
    arguments |= _options(row, modality, how, options, known, cls)
    for name, value in (("http_session", http_session), ("sample_rate", sample_rate)):
        if value is not None and name in accepted:
            arguments.setdefault(name, value)
    try:
        plugin = cls(**{**arguments, **how.fixed, **secrets})
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        # A constructor's own complaint about a value; it may quote what it was given.
        told = str(error)
        for secret in secrets.values():
            told = told.replace(secret, "***")
        raise UnsupportedOption(f"{row.name} ({modality}) refuses its options: {told}") from None
    _override(plugin, how.overrides)
    return plugin


def takes(row: Provider, modality: Modality, model: str, option: str) -> bool:
    """Whether the plugin that serves ``model`` has an option of this name.

    Raises UnknownModel or MissingExtra.
    """
    how = served_by(row, modality)
    if isinstance(how, Wire):
        return option in CHAT_PARAMS | how.extra_params
    if isinstance(how, Realtime):
        return False
    how = how.variant(model or how.default_model)
    accepted = inspect.signature(_load(row, how.target)).parameters
    known = _known(row, how, accepted.keys() - how.fixed.keys())
    return how.aliases.get(option, option) in known


def fits(row: Provider, modality: Modality, model: str, option: str, value: Any) -> bool:
    """Whether ``value`` is of a type that an option may be which the plugin for ``model`` takes.

    Raises UnknownModel or MissingExtra.
    """
    how = served_by(row, modality)
    if not isinstance(how, Plugin) or not takes(row, modality, model, option):
        return True
    how = how.variant(model or how.default_model)
    try:
        fitted(_load(row, how.target), how.aliases.get(option, option), value, option)
    except Misfit:
        return False
    return True


def _credentials(row: Provider, given: Mapping[str, str], base_url: str | None) -> dict[str, str]:
    secrets: dict[str, str] = {}
    for credential in row.credentials:
        secret = given.get(credential.name, "")
        if not secret and not (credential.optional_elsewhere and base_url):
            raise MissingCredential(
                f"{row.name} needs a credential: set providers.{row.name}.{credential.name} "
                f"or the variable {credential.variables[0]}"
            )
        # A server of one's own may ask for no key; the vendor's class still must not look for one.
        secrets[credential.name] = secret or _NO_KEY
    return secrets


def _reference(
    row: Provider,
    modality: Modality,
    how: Plugin,
    model: str,
    suffix: str,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The arguments that the reference stands for; takes what it uses out of ``options``."""
    named = options.pop(_NAMES[modality], None)
    suffix = suffix or named or ""
    model = how.models.get(model, model)
    if how.voices:
        return {"model": _voiced(how, model, suffix, options.pop("language", None))}
    arguments: dict[str, Any] = {}
    if how.model is not None:
        arguments[how.model] = model
    elif model and model != how.default_model:
        raise UnknownModel(f'{row.name} has no {modality} model "{model}"; leave the model out')
    if modality is Modality.TTS and how.language and (language := options.pop("language", None)):
        arguments[how.language] = language
    if suffix and suffix not in how.implied and suffix.partition("-")[0] not in how.implied:
        arguments |= _suffix(row, modality, how, model, suffix)
    return arguments


def _suffix(
    row: Provider, modality: Modality, how: Plugin, model: str, suffix: str
) -> dict[str, Any]:
    word = _NAMES[modality]
    if how.suffix is None:
        raise UnsupportedOption(f'{row.name}/{model} takes no {word}, and got "{suffix}"')
    if how.suffix == how.model and model != how.default_model and model != suffix:
        raise UnsupportedOption(f'{row.name} got two {word}s: "{model}" and "{suffix}"')
    return {how.suffix: [suffix] if how.suffix_listed else suffix}


def _voiced(how: Plugin, model: str, voice: str, language: str | None) -> str:
    """``aura-2`` with ``athena`` is ``aura-2-athena-en``; a name that has its voice stays."""
    if model not in how.voices:
        return model
    voice = voice or how.voices[model]
    if "-" not in voice:
        voice = f"{voice}-{language or 'en'}"
    return voice if voice.startswith(f"{model}-") else f"{model}-{voice}"


def _url(how: Plugin, base_url: str | None) -> dict[str, str]:
    if base_url is None:
        return {"base_url": how.home} if how.home else {}
    base = base_url.rstrip("/")
    ws = "ws" + base.removeprefix("http") if base.startswith("http") else base
    return {"base_url": how.base_url.format(base=base, ws=ws)}


def _load(row: Provider, target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        told = f"{row.title} needs a package that is not installed ({error.name or error})"
        if row.name in PROVIDERS:
            told += f": pip install 'trunkline[{row.extra or row.name}]'"
        else:
            told += f": install what brought the provider {row.name} with all it depends on"
        raise MissingExtra(told) from error


def _options(
    row: Provider,
    modality: Modality,
    how: Plugin,
    options: Mapping[str, Any],
    known: set[str],
    cls: Any,
) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name, value in options.items():
        argument = how.aliases.get(name, name)
        if argument not in known:
            raise _unsupported(row, modality, name, known | how.aliases.keys())
        try:
            arguments[argument] = fitted(cls, argument, value, name)
        except Misfit as misfit:
            told = f"{row.name} ({modality}) refuses an option: {misfit}"
            raise UnsupportedOption(told) from None
    return arguments


def _known(row: Provider, how: Plugin, accepted: Iterable[str]) -> set[str]:
    """Of the arguments that a constructor accepts, those that are options."""
    reserved = _RESERVED | {c.name for c in row.credentials} | {how.model, how.suffix, how.language}
    return {n for n in accepted if n not in reserved and not n.startswith("_")}


def _unsupported(
    row: Provider, modality: Modality, name: str, known: Iterable[str]
) -> UnsupportedOption:
    if name in {c.name for c in row.credentials} | {"base_url"}:
        return UnsupportedOption(
            f'"{name}" is no option of {row.name} ({modality}); it belongs to the connection: '
            f"providers.{row.name}.{name}"
        )
    near = did_you_mean(name, known)
    return UnsupportedOption(f'{row.name} ({modality}) has no option "{name}"{near}')


def forget_environment(plugin: Any) -> None:
    """Undo what the ``openai.AsyncClient`` inside ``plugin`` has read from the environment."""
    _override(plugin, OPENAI_CLIENT)


def _override(plugin: Any, overrides: Mapping[str, Any]) -> None:
    for path, value in overrides.items():
        *owners, attribute = path.split(".")
        owner = plugin
        for name in owners:
            owner = getattr(owner, name, None)
        # A vendor's client that no longer has the attribute no longer reads it either.
        if hasattr(owner, attribute):
            setattr(owner, attribute, dict(value) if isinstance(value, dict) else value)
