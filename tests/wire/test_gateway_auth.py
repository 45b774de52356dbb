"""Who comes in: tokens and keys as clients make them, and every way in which one is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from gateway_house import AUTH, BEARER, KEY, SECRET, serving, token
from livekit import api
from llm_server import say

from trunkline.config import GatewaySettings, Secret
from trunkline.errors import UsageError
from trunkline.gateway.auth import DEFAULT_KEY, DEFAULT_SECRET, Keyring, check_secrets
from trunkline.gateway.refusal import Refusal

SETTINGS = GatewaySettings({KEY: Secret(SECRET)}, (Secret(BEARER), Secret("second-bearer")))
Credential = str | Callable[[], str]
"""One that depends on the time is made when it is needed."""


def made(credential: Credential) -> str:
    return credential if isinstance(credential, str) else credential()


def unsigned(alg: Any) -> str:
    """A token that says ``alg`` and is signed with nothing."""
    claims = jwt.decode(token(), options={"verify_signature": False})
    parts = [json.dumps(part).encode() for part in ({"alg": alg}, claims)]
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts) + "."


LET_IN = {
    "as Python's client makes it": token(),
    "as the server SDK makes it": api.AccessToken(KEY, SECRET)
    .with_identity("agent")
    .with_inference_grants(api.access_token.InferenceGrants(perform=True))
    .to_jwt(),
    "without typ": token(headers={"typ": None}),
    "without nbf": token(nbf=None),
    "a clock that is ahead": partial(token, nbf=20),
    "a clock that is behind": partial(token, exp=-20),
    "with claims of others": token(video={"roomJoin": True}, metadata="x"),
    "a bearer key": BEARER,
    "another bearer key": "second-bearer",
}

REFUSED = {
    "nothing": ("", 401, "no credential"),
    "expired": (partial(token, exp=-60), 401, "expired"),
    "never expires": (token(exp=None), 401, "not a signed"),
    "early": (partial(token, nbf=60), 401, "not valid yet"),
    "another secret": (token("another-secret-of-thirty-two-chars"), 401, "signature"),
    "another key": (token(iss="APIother"), 401, "signature"),
    "no issuer": (token(iss=None), 401, "not a signed"),
    "no grant": (token(inference=None), 403, "inference.perform"),
    "a grant for something else": (token(inference=None, video={"roomJoin": True}), 403, "grant"),
    "a grant that is false": (token(inference={"perform": False}), 403, "grant"),
    "a grant that is no bool": (token(inference={"perform": "yes"}), 401, "not a signed"),
    "alg none": (unsigned("none"), 401, "HS256"),
    "alg None": (unsigned("None"), 401, "HS256"),
    "alg that is no text": (unsigned(None), 401, "not a signed"),
    "alg HS512": (
        jwt.encode({"iss": KEY, "exp": 9e9}, SECRET * 2, algorithm="HS512"),
        401,
        "HS256",
    ),
    "a critical extension": (token(headers={"crit": ["exp"]}), 401, "HS256"),
    "half a token": (token()[:-11], 401, "signature"),
    "a padded signature": (token() + "=", 401, "not a signed"),
    "two dots": ("a.b.c", 401, "not a signed"),
    "an endless token": ("a.b." + "c" * 5000, 401, "longer"),
    "an unknown bearer key": ("bearer-of-nobody", 401, "not known"),
    "the bearer key and more": (BEARER + "x", 401, "not known"),
    "the secret itself": (SECRET, 401, "not known"),
    "what is not ASCII": ("schlüssel", 401, "not known"),
}


@pytest.mark.parametrize("credential", LET_IN.values(), ids=LET_IN)
def test_a_client_is_let_in(credential: Credential) -> None:
    principal = Keyring(SETTINGS).admit({"authorization": f"Bearer {made(credential)}"})
    assert principal.name == KEY or principal.name.startswith("bearer[")


@pytest.mark.parametrize(("credential", "status", "told"), REFUSED.values(), ids=REFUSED)
def test_anybody_else_is_refused(credential: Credential, status: int, told: str) -> None:
    credential = made(credential)
    with pytest.raises(Refusal, match=told) as refused:
        Keyring(SETTINGS).admit({"authorization": f"Bearer {credential}"})
    assert refused.value.status == status
    for secret in (SECRET, BEARER, credential):
        assert not secret or secret not in str(refused.value)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", BEARER, f"Token {BEARER}"])
def test_only_a_bearer_credential_is_one(header: str) -> None:
    with pytest.raises(Refusal, match="no credential"):
        Keyring(SETTINGS).admit({"authorization": header})


@pytest.mark.filterwarnings("ignore:The HMAC key is")
def test_without_keys_of_its_own_it_takes_the_development_pair_from_this_machine() -> None:
    dev = token(DEFAULT_SECRET, iss=DEFAULT_KEY)
    assert Keyring(GatewaySettings()).admit({"authorization": f"Bearer {dev}"}).name == "devkey"
    with pytest.raises(Refusal):
        Keyring(SETTINGS).admit({"authorization": f"Bearer {dev}"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gateway.local"])
@pytest.mark.parametrize(
    "known",
    [GatewaySettings(), GatewaySettings({"APIx": Secret("secret")})],
    ids=["no secret", "the development secret"],
)
def test_other_machines_need_secrets_of_ones_own(known: GatewaySettings, host: str) -> None:
    with pytest.raises(UsageError, match=r"gateway\.keys"):
        check_secrets(known, host)
    check_secrets(known, "127.0.0.1")
    check_secrets(SETTINGS, host)


async def test_a_refusal_is_json_with_the_id_that_the_header_and_the_log_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, say("Hi")) as (house, _):
        async with house.ask(headers={"Authorization": "Bearer wrong"}) as answer:
            error = (await answer.json())["error"]
        async with house.ask(headers={}) as other:
            assert other.status == 401
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert error["type"] == "authentication_error"
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["request_id"] in caplog.text
    assert "wrong" not in caplog.text.replace("is wrong", "")


async def test_a_token_is_checked_once_and_a_door_is_not_open_without_it(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi")) as (house, servers):
        for path, method, status in (
            ("/models", "GET", 401),
            ("/models/answer", "GET", 401),
            ("/chat/completions", "POST", 401),
            ("/chat/completions", "GET", 401),
            ("/nowhere", "GET", 404),
        ):
            async with house.session.request(method, f"{house.url}{path}") as answer:
                assert answer.status == status, path
        async with house.session.get(f"{house.url}/models", headers=AUTH) as answer:
            assert answer.status == 200
        assert servers[0].requests == []
