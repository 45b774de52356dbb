"""The ASGI application: from a path to its door, and from whatever goes wrong to one answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec

from ..clock import new_id
from ..compose import Trunkline, Wanted
from ..core.models import Candidate, Identity, Modality, Plan
from ..errors import TrunklineError
from . import chat, decisions, models, realtime
from .attendance import Attendance
from .exchange import ClientGone, Exchange, Receive, Scope, Send
from .plans import Ask
from .refusal import Refusal, log_refusal, refusal_of
from .switchboard import Switchboard
from .websocket import GOING_AWAY, Socket

logger = logging.getLogger("trunkline")

HttpDoor = Callable[[Switchboard, Exchange], Awaitable[None]]
SocketDoor = Callable[[Switchboard, Socket], Awaitable[None]]


async def _health(house: Switchboard, exchange: Exchange) -> None:
    """Answer a load balancer: 200, or 503 as soon as this process takes no more.

    ``loading`` names the modalities whose first calls wait a little for what they need.
    """
    status, word = (503, "draining") if house.draining.is_set() else (200, "ok")
    told: dict[str, object] = {"status": word}
    if loading := house.loading:
        told["loading"] = loading
    await exchange.answer(status, msgspec.json.encode(told))


async def _say(house: Switchboard, exchange: Exchange) -> None:
    await house.ready_for(Modality.TTS)
    from . import audio_speech  # with livekit, which chats do not need

    await audio_speech.say(house, exchange)


async def _transcribe(house: Switchboard, exchange: Exchange) -> None:
    await house.ready_for(Modality.STT)
    from . import audio_transcriptions  # with livekit, as above

    await audio_transcriptions.transcribe(house, exchange)


OPEN: Mapping[str, tuple[str, HttpDoor]] = {"/healthz": ("GET", _health)}
"""What anybody may ask."""

HTTP: Mapping[str, tuple[str, HttpDoor]] = {
    "/v1/chat/completions": ("POST", chat.complete),
    "/v1/decisions": ("POST", decisions.decide),
    "/v1/audio/speech": ("POST", _say),
    "/v1/audio/transcriptions": ("POST", _transcribe),
    "/v1/models": ("GET", models.listed),
}
"""Doors by path, each with its method. A path with a prefix of one of PREFIXES counts as that."""

PREFIXES = ("/v1/models",)

DRESSED: Mapping[str, Callable[[Exchange], None]] = {"/v1/decisions": decisions.dress}
"""What makes all answers under a path look as its clients expect; the others look like OpenAI's."""


async def _hear(house: Switchboard, socket: Socket) -> None:
    await house.ready_for(Ask(Modality.STT, Wanted(socket.model)))
    from . import stt  # with livekit, which chats do not need

    await stt.hear(house, socket)


async def _speak(house: Switchboard, socket: Socket) -> None:
    await house.ready_for(Ask(Modality.TTS, Wanted(socket.model)))
    from . import tts  # with livekit, as above

    await tts.speak(house, socket)


SOCKETS: Mapping[str, SocketDoor] = {
    "/v1/stt": _hear,
    "/v1/tts": _speak,
    "/v1/realtime": realtime.converse,
}
"""Doors for WebSockets by path. A door accepts or refuses the upgrade itself.

``/v1/eot`` and ``/v1/bargein`` have none on purpose: at 404 an agent goes on with what it has.
"""


class Gateway:
    """The application. One a process and event loop; ``house`` is what its doors share.

    ``host`` is where it listens. Raises UsageError when others could come in with known secrets.
    """

    def __init__(self, trunkline: Trunkline, host: str = "127.0.0.1") -> None:
        self.house = Switchboard(trunkline, host)
        self._attendance = Attendance()
        self.house.plans.probes = {
            Modality.LLM: self._probe_chat,
            Modality.STT: partial(self._probe_speech, Modality.STT),
            Modality.TTS: partial(self._probe_speech, Modality.TTS),
            Modality.REALTIME: self._probe_realtime,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            with self.house.working():
                exchange = Exchange(scope, receive, send)
                self._attendance.come(exchange)
                try:
                    await self._http(exchange)
                finally:
                    self._attendance.leave(exchange)
                    exchange.close()
        elif scope["type"] == "websocket":
            with self.house.working():
                await self._socket(Socket(scope, receive, send))

    async def _http(self, exchange: Exchange) -> None:
        try:
            await self._answer(exchange)
        except asyncio.CancelledError:
            if (over := exchange.called_off()) is None:
                raise
            if isinstance(over, Refusal):
                await self._refuse_http(exchange, over)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._open_door(exchange)
        except ClientGone:
            return
        except (Refusal, TrunklineError) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            await self._refuse_http(exchange, refusal)
        except Exception:  # the last boundary: one request must not take others with it
            logger.exception("request %s failed", exchange.id)
            told = "the gateway failed; its log knows the request by its id"
            await self._refuse_http(exchange, Refusal(500, told))

    @staticmethod
    async def _refuse_http(exchange: Exchange, refusal: Refusal) -> None:
        log_refusal(exchange.id, refusal)
        if not exchange.started:  # else it stays without its end: the client sees it cut
            with contextlib.suppress(ClientGone):
                await exchange.refuse(refusal)

    async def _open_door(self, exchange: Exchange) -> None:
        path = exchange.path
        prefix = next((p for p in PREFIXES if path.startswith(f"{p}/")), path)
        method, door = OPEN.get(path) or HTTP.get(prefix) or ("", None)
        if (dress := DRESSED.get(path)) is not None:
            dress(exchange)
        if path in SOCKETS:
            told = "this path takes WebSockets only: a proxy in between must pass the upgrade on"
            raise Refusal(426, told, headers=((b"upgrade", b"websocket"),))
        if door is None:
            raise _not_found(path)
        if path not in OPEN:
            exchange.principal = self.house.keyring.admit(exchange.headers)
        if exchange.method != method and not (method == "GET" and exchange.method == "HEAD"):
            told = f"this path takes {method} only"
            raise Refusal(405, told, headers=((b"allow", method.encode()),))
        await door(self.house, exchange)

    async def _socket(self, socket: Socket) -> None:
        try:
            door = SOCKETS.get(socket.path)
            if door is None:
                raise _not_found(socket.path)
            socket.principal = self.house.keyring.admit(socket.headers)
            await door(self.house, socket)
        except ClientGone:
            return
        except (Refusal, TrunklineError) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            log_refusal(socket.id, refusal)
            await self._refuse(socket, refusal)
        except Exception:  # the last boundary: one socket must not take others with it
            logger.exception("socket %s failed", socket.id)
            await self._refuse(socket, Refusal(500, "the gateway failed; its log knows the id"))
        await socket.close(GOING_AWAY)

    @staticmethod
    async def _refuse(socket: Socket, refusal: Refusal) -> None:
        with contextlib.suppress(ClientGone):
            await socket.refuse(refusal)

    async def _probe_chat(self, candidate: Candidate, plan: Plan) -> None:
        await chat.probe(self.house.trunkline.engine, candidate, plan, self._nobody())

    async def _probe_realtime(self, candidate: Candidate, plan: Plan) -> None:
        await realtime.probe(self.house.trunkline.engine, candidate, plan, self._nobody())

    async def _probe_speech(self, modality: Modality, candidate: Candidate, plan: Plan) -> None:
        from ..runtime.probes import probe  # with livekit, as above

        await probe(self.house.trunkline.engine, modality, candidate, plan, self._nobody)

    def _nobody(self) -> Identity:
        """Whose call a probe is."""
        settings = self.house.trunkline.settings
        return Identity(call=new_id(), org=settings.org, project=settings.project)


_TOLD_OF_PATH = 80


def _not_found(path: str) -> Refusal:
    """Tell which path it was: of a wrong base URL the client shows its user the status alone."""
    told = f"nothing is served under {path[:_TOLD_OF_PATH]!a}"
    if f"/v1{path}" in HTTP.keys() | SOCKETS.keys():
        told += "; the base URL of a client ends in /v1"
    return Refusal(404, told, code="not_found")
