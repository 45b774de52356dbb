"""Every provider as data, and the registry that builds its plugin when it is first needed."""

from ..core.quirks import ChatQuirks, ParameterRule
from .clients import check_for_clients, is_for_clients
from .installed import GROUP
from .model import Credential, Plugin, Provider, Realtime, Wire
from .providers import LOCAL, PREFERRED, PROVIDERS
from .quirks import OPENAI_VOICES
from .registry import (
    build,
    canonical,
    chat_options,
    fits,
    forget_environment,
    in_use,
    is_provider,
    names,
    no_options,
    preferred,
    provider,
    served_by,
    takes,
)

__all__ = [
    "GROUP",
    "LOCAL",
    "OPENAI_VOICES",
    "PREFERRED",
    "PROVIDERS",
    "ChatQuirks",
    "Credential",
    "ParameterRule",
    "Plugin",
    "Provider",
    "Realtime",
    "Wire",
    "build",
    "canonical",
    "chat_options",
    "check_for_clients",
    "fits",
    "forget_environment",
    "in_use",
    "is_for_clients",
    "is_provider",
    "names",
    "no_options",
    "preferred",
    "provider",
    "served_by",
    "takes",
]
