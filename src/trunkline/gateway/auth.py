"""Who may come in: LiveKit's access tokens and bearer keys.

A token is a JSON Web Token signed with HMAC-SHA256 (RFC 7515, 7519), its issuer an API key whose
secret is known here. Only that algorithm exists for this module, so a header cannot choose another.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..clock import now_ns
from ..config import GatewaySettings
from ..errors import UsageError
from ..runtime.gate_rules import Audience
from .refusal import Refusal

LEEWAY = 30.0
"""Seconds that a client's clock may be off: ``nbf`` is the moment of minting."""

DEFAULT_KEY, DEFAULT_SECRET = "devkey", "secret"
"""The pair of ``livekit-server --dev``; it is let in from this machine only."""

_LONGEST = 4096


class _Header(msgspec.Struct):
    alg: str
    crit: Any = None


class _Inference(msgspec.Struct):
    perform: bool = False


class _Claims(msgspec.Struct):
    iss: str
    exp: float
    nbf: float = 0.0
    inference: _Inference | None = None


_header_of = msgspec.json.Decoder(_Header).decode
_claims_of = msgspec.json.Decoder(_Claims).decode


@dataclass(frozen=True, slots=True)
class Principal:
    """Who was let in: the API key, or ``bearer[0]`` for the first bearer key of the settings.

    ``is_agent``: by a token, as LiveKit's agents are. A bearer key may be any program's.
    """

    name: str
    is_agent: bool = False

    @property
    def audience(self) -> Audience:
        """Who hears what is answered, as far as that is known."""
        return Audience.CALLER if self.is_agent else Audience.ANYBODY


NOBODY = Principal("")


class Keyring:
    """What opens the doors: every key pair and bearer key of the settings, or LiveKit's dev pair.

    Secrets are compared in constant time; a bearer key is found by a hash with a key of this
    process's own, so that the time of the search says nothing about it.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        pairs = {key: secret.reveal() for key, secret in settings.keys.items()}
        if not pairs and not settings.bearer:
            pairs = {DEFAULT_KEY: DEFAULT_SECRET}
        self._secrets: Mapping[str, bytes] = {k: secret.encode() for k, secret in pairs.items()}
        self._salt = os.urandom(32)
        self._bearers = {
            self._digest(key.reveal()): Principal(f"bearer[{index}]")
            for index, key in enumerate(settings.bearer)
        }

    def admit(self, headers: Mapping[str, str]) -> Principal:
        """Say who sends a request with these headers. Raises Refusal: 401, or 403 for a grant."""
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise _unauthorized("no credential: send Authorization: Bearer with a token or a key")
        principal = self._bearers.get(self._digest(credential))
        if principal is not None:
            return principal
        if credential.count(".") != 2:
            raise _unauthorized("the bearer key is not known here: see gateway.bearer")
        return self._verified(credential)

    def _verified(self, token: str) -> Principal:
        if len(token) > _LONGEST:
            raise _unauthorized(f"the token is longer than {_LONGEST} characters")
        signed, _, signature = token.rpartition(".")
        head, _, payload = signed.partition(".")
        try:
            header, claims = _header_of(_decoded(head)), _claims_of(_decoded(payload))
            given = _decoded(signature)
        except (ValueError, RecursionError):
            raise _unauthorized("the token is not a signed LiveKit access token") from None
        if header.alg != "HS256" or header.crit is not None:
            raise _unauthorized("the token is not signed with HS256")
        secret = self._secrets.get(claims.iss)
        expected = hmac.digest(secret or self._salt, signed.encode(), "sha256")
        if not hmac.compare_digest(given, expected) or secret is None:
            raise _unauthorized("the token's key or signature is wrong: see gateway.keys")
        now = now_ns() / 1e9
        if not now - LEEWAY < claims.exp:
            raise _unauthorized("the token has expired: make a new one, and check the clocks")
        if not claims.nbf <= now + LEEWAY:
            raise _unauthorized("the token is not valid yet: check the clocks")
        if claims.inference is None or not claims.inference.perform:
            raise Refusal(403, "the token lacks the grant inference.perform", code="missing_grant")
        return Principal(claims.iss, is_agent=True)

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "replace"), key=self._salt).digest()


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_secrets(settings: GatewaySettings, host: str) -> None:
    """Refuse to let other machines in with a secret that everybody knows. Raises UsageError."""
    secrets = [secret.reveal() for secret in (*settings.keys.values(), *settings.bearer)]
    if host not in _LOOPBACK and (not secrets or DEFAULT_SECRET in secrets):
        raise UsageError(
            f"the gateway serves other machines ({host}) only with secrets of your own: set "
            "gateway.keys in trunkline.yaml, or LIVEKIT_API_KEY and LIVEKIT_API_SECRET; "
            f"{DEFAULT_KEY}/{DEFAULT_SECRET} is for this machine alone"
        )


def _unauthorized(told: str) -> Refusal:
    return Refusal(401, told, code="invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))


def _decoded(part: str) -> bytes:
    """Base64 in its URL alphabet without padding. Raises ValueError."""
    if not part.isascii() or any(c in part for c in "+/= \r\n"):
        raise binascii.Error
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
