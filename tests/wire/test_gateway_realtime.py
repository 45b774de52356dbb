"""``/v1/realtime``, event by event, before doubles of OpenAI's Realtime API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from gateway_house import AUTH, BEARER, KEY, SECRET, running, until
from gateway_realtime import MODEL, ROUTE, Realtime, Wire, realtime

from trunkline.core.models import Attempt, Purpose
from trunkline.doubles import Rule
from trunkline.gateway import realtime as door
from trunkline.gateway import websocket

FOUR = {"replies": ("One two three four.",)}


async def opened(house: Realtime, *args: Any) -> Wire:
    wire = await house.connect(*args)
    assert (await wire.next())["type"] == "session.created"
    return wire


def served(house: Realtime) -> list[tuple[str, str]]:
    """Connection and outcome of each session's attempts."""
    kept = [a for a in house.attempts if a.purpose is Purpose.SERVE]
    return [(attempt.connection, attempt.outcome) for attempt in kept]


async def settled(house: Realtime, attempts: int = 1) -> list[Attempt]:
    await until(lambda: len(house.attempts) >= attempts)
    return house.attempts


async def test_events_pass_in_their_order_and_as_they_are(tmp_path: Path) -> None:
    async with realtime(tmp_path, double=FOUR) as house:
        wire = await opened(house)
        response = await wire.ask("Count.", metadata={"type": "response.done", "é": '"error"'})
        assert response["status"] == "completed"
        assert response["metadata"] == {"type": "response.done", "é": '"error"'}
        assert wire.heard == ["one", "two", "three", "four"]
        kinds = [kind for kind in wire.kinds() if not kind.endswith("delta")]
        assert kinds == [
            "session.created",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
        ]
        await wire.close()
        (attempt,) = await settled(house)
        assert (attempt.outcome, attempt.model, attempt.route) == ("ok", MODEL, ROUTE)
        assert house.used == house.billed


async def test_whose_call_it_is_is_on_every_attempt(tmp_path: Path) -> None:
    ids = {"X-LiveKit-Room-ID": "RM_1", "X-LiveKit-Job-ID": "AJ_1", "X-LiveKit-Session-ID": "s1"}
    refuses = [Rule(kind="server_error")]
    async with realtime(tmp_path, refuses, ()) as house:
        wire = await opened(house, ROUTE, ids)
        transcription = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        await wire.send("session.update", session=transcription)
        await wire.until("session.updated")
        await wire.close()
        for attempt in await settled(house, 3):
            whose = attempt.identity
            found = whose.room, whose.job, whose.session, whose.call
            assert found == ("RM_1", "AJ_1", "s1", "AJ_1")


# Who answers.


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Rule(kind="refuse"), "connect_failed"),
        (Rule(kind="hang"), "connect_timeout"),
        (Rule(kind="black_hole"), "connect_timeout"),
        (Rule(kind="hang_after"), "first_content_timeout"),
        (Rule(kind="keep_alive", every=0.1), "first_content_timeout"),
        (Rule(kind="die"), "stream_cut"),
        (Rule(kind="end"), "stream_cut"),
        (Rule(kind="unauthorized"), "unauthorized"),
        (Rule(kind="payment_required"), "payment_required"),
        (Rule(kind="rate_limited"), "rate_limited"),
        (Rule(kind="server_error"), "provider_fault"),
    ],
    ids=lambda one: str(one.kind) if isinstance(one, Rule) else None,
)
async def test_a_candidate_that_opens_no_session_is_not_noticed(
    tmp_path: Path, fault: Rule, outcome: str
) -> None:
    quick = {"deadlines": {"connect": 0.5, "first_content": 1.0}}
    async with realtime(tmp_path, [fault], (), route=quick, double=FOUR) as house:
        wire = await opened(house)
        assert (await wire.ask("Count."))["status"] == "completed"
        await wire.close()
        await settled(house, 2)
        assert served(house) == [("openai", outcome), ("second", "ok")]
        assert house.used == house.billed
        again = await opened(house)
        await again.close()
        await settled(house, 3)
        assert served(house)[2:] == [("second", "ok")]  # health knows


@pytest.mark.parametrize(
    ("faults", "model", "status"),
    [
        ([[Rule(kind="server_error")], [Rule(kind="server_error")]], ROUTE, 502),
        ([[Rule(kind="rate_limited")], [Rule(kind="rate_limited")]], ROUTE, 429),
        ([[Rule(kind="refuse")], [Rule(kind="server_error")]], ROUTE, 502),
        ([()], "openai/gpt-realtime", 101),
        ([()], "openai", 101),
        ([()], "nobody/gpt-realtime", 404),
        ([()], "deepgram/nova-3", 404),
        ([()], "../v1/chat", 404),
        ([()], "auto", 404),
        ([()], None, 404),
    ],
)
async def test_a_refusal_is_a_status_of_the_upgrade(
    tmp_path: Path, faults: Sequence[Sequence[Rule]], model: str | None, status: int
) -> None:
    async with realtime(tmp_path, *faults) as house:
        assert await house.status(model) == status


@pytest.mark.parametrize("given", ["", "Bearer no-such-key", "Basic x", "Bearer a.b.c"])
async def test_who_has_no_credential_is_refused(tmp_path: Path, given: str) -> None:
    async with realtime(tmp_path) as house:
        assert await house.status(Authorization=given) == 401
        assert await house.status(**AUTH) == 101
        assert len(house.doubles["openai"].requests) == 1


async def test_the_providers_key_is_the_gateways(tmp_path: Path) -> None:
    """The double takes no other key; what the client shows never gets there."""
    async with realtime(tmp_path) as house:
        wire = await opened(house, ROUTE, {"OpenAI-Beta": "realtime=v1", "X-Secret": "mine"})
        told = json.dumps(wire.seen)
        assert "sk-openai" not in told
        await wire.close()


async def test_the_header_names_who_must_serve(tmp_path: Path) -> None:
    async with realtime(tmp_path, (), ()) as house:
        wire = await opened(house, ROUTE, {"X-LiveKit-Inference-Provider": "second"})
        await wire.close()
        await settled(house)
        assert served(house) == [("second", "ok")]
        assert await house.status(ROUTE, **{"X-LiveKit-Inference-Provider": "nobody"}) == 404


# A session that lives.


@pytest.mark.parametrize("kind", ["die", "end", "garbage", "stall"])
async def test_a_session_that_dies_is_closed_and_the_next_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("trunkline.gateway.realtime_line._SILENT_SECONDS", 0.5)
    dies = [Rule(kind=kind, after=2)]
    quick = {"deadlines": {"idle": 0.5}}
    async with realtime(tmp_path, dies, (), route=quick, double=FOUR) as house:
        wire = await opened(house)
        await wire.write("Count.")
        await wire.send("response.create")
        error = await wire.until("error")
        assert error["error"]["type"] == "server_error"
        assert error["error"]["code"] not in {"insufficient_quota", "invalid_api_key"}
        assert (await wire.next())["type"] == "closed"
        assert "response.done" not in wire.kinds()
        again = await opened(house)
        assert (await again.ask("Count."))["status"] == "completed"
        await again.close()
        await settled(house, 2)
        assert [name for name, _ in served(house)] == ["openai", "second"]
        assert served(house)[1] == ("second", "ok")
        at_the_end = [e.quality.value for e in house.entries if e.kind == "settlement"]
        assert at_the_end == ["underestimate", "exact"]


async def test_silence_counts_from_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from before: a caller may think for minutes."""
    monkeypatch.setattr("trunkline.gateway.realtime_line._SILENT_SECONDS", 0.5)
    quick = {"deadlines": {"first_content": 1, "idle": 0.5}}
    stalls = [Rule(kind="stall", nth=(2,))]
    async with realtime(tmp_path, stalls, route=quick, double=FOUR) as house:
        wire = await opened(house)
        await asyncio.sleep(1.5)  # longer than all of these
        assert (await wire.ask("Count."))["status"] == "completed"
        await asyncio.sleep(1.5)
        await wire.send("response.create")
        assert (await wire.until("error"))["error"]["code"] == "idle_timeout"
        await settled(house)
        assert served(house) == [("openai", "idle_timeout")]


async def test_a_provider_that_ends_a_quiet_session_is_well(tmp_path: Path) -> None:
    """Sessions have a longest duration; the client connects anew."""

    async def ends(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str('{"type":"session.created","session":{}}')
        error = {"type": "invalid_request_error", "code": "session_expired", "message": "long"}
        await socket.send_str(json.dumps({"type": "error", "error": error}))
        await socket.close(code=int(request.query["model"]))
        return socket

    app = web.Application()
    app.router.add_get("/v1/realtime", ends)
    server = TestServer(app)
    await server.start_server()
    settings = {
        "version": 1,
        "providers": {"openai": {"api_key": "sk", "base_url": str(server.make_url("/v1"))}},
        "gateway": {"keys": {KEY: SECRET}, "bearer": [BEARER]},
    }
    async with running(tmp_path, settings) as house:
        for code in (1000, 1001, 4000):
            url = f"{house.url}/realtime?model=openai/{code}"
            socket = await house.session.ws_connect(url, headers=AUTH)
            events = [json.loads(frame.data)["type"] async for frame in socket]
            assert events == ["session.created", "error"]
            assert socket.close_code == 1001
        await until(lambda: len(house.attempts) == 3)
        assert [attempt.outcome for attempt in house.attempts] == ["ok"] * 3
    await server.close()


async def test_an_answer_that_was_asked_for_is_owed(tmp_path: Path) -> None:
    """The provider may have begun to charge for it."""
    ends = [Rule(kind="end", after=0, nth=(2,))]
    async with realtime(tmp_path, ends, double=FOUR) as house:
        wire = await opened(house)
        assert (await wire.ask("Count."))["status"] == "completed"
        await wire.send("response.create")
        assert (await wire.until("closed"))["code"] == 1011
        await settled(house)
        assert served(house) == [("openai", "stream_cut")]
        assert house.entries[0].quality == "underestimate"


async def test_a_client_that_leaves_in_an_answer_has_it_called_off(tmp_path: Path) -> None:
    """The provider is told, and says what it costs: the ledger has it to the token."""
    slow = {"replies": ("word " * 40,), "pace": {"between": 0.05}}
    async with realtime(tmp_path, double=_paced(slow)) as house:
        wire = await opened(house)
        await wire.write("Count.")
        await wire.send("response.create")
        await wire.until("response.output_audio.delta")
        await wire.close()
        await settled(house)
        assert [entry.quality.value for entry in house.entries] == ["exact"]
        assert served(house) == [("openai", "ok")]
        await until(lambda: house.doubles["openai"].requests[0].outcome != "running")
        assert house.used == house.billed
        assert house.used.tokens_audio_out > 0


def _paced(double: dict[str, Any]) -> dict[str, Any]:
    from trunkline.doubles.latency import Pace

    return {**double, "pace": Pace(**double["pace"])}


async def test_interrupted_and_incomplete_answers_are_paid_for(tmp_path: Path) -> None:
    slow = {"replies": ("word " * 40,), "pace": {"between": 0.02}}
    async with realtime(tmp_path, double=_paced(slow)) as house:
        wire = await opened(house)
        await wire.write("Count.")
        await wire.send("response.create")
        await wire.until("response.output_audio.delta")
        await wire.send("response.cancel")
        assert (await wire.until("response.done"))["response"]["status"] == "cancelled"
        response = await wire.ask("Again.", max_output_tokens=30)
        assert response["status"] == "incomplete"
        await wire.send("response.create")
        await wire.until("response.output_audio.delta")
        await wire.speak("stop it please")  # who speaks is heard out
        assert (await wire.until("response.done"))["response"]["status"] == "cancelled"
        await wire.until("response.created")
        await wire.send("response.cancel")
        await wire.until("response.done")
        await wire.close()
        await settled(house)
        assert {entry.quality.value for entry in house.entries} == {"exact"}
        assert house.used == house.billed
        assert house.used.tokens_cached > 0
        assert house.used.tokens_audio_in > 0


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "whisper-1"])
async def test_transcripts_are_an_attempt_of_their_own(tmp_path: Path, model: str) -> None:
    async with realtime(tmp_path, double=FOUR) as house:
        wire = await opened(house)
        heard = {"transcription": {"model": model}, "turn_detection": None}
        await wire.send("session.update", session={"audio": {"input": heard}})
        await wire.until("session.updated")
        for text in ("good morning", "is there a room"):
            await wire.speak(text)
            await wire.send("input_audio_buffer.commit")
            kind = "conversation.item.input_audio_transcription.completed"
            assert (await wire.until(kind))["transcript"] == text
        await wire.send("response.create")
        await wire.until("response.done")
        await wire.close()
        await settled(house, 2)
        assert house.used == house.billed
        (written,) = [a for a in house.attempts if a.purpose is Purpose.TRANSCRIPT]
        assert (written.modality, written.model, written.outcome) == ("stt", model, "ok")
        lines = house.doubles["openai"].bill
        own = [line.units for line in lines if line.model == model]
        assert len(own) == 2
        assert written.usage.audio_in_ns == sum(units.audio_in_ns for units in own)
        assert written.usage.tokens_audio_in == sum(units.tokens_audio_in for units in own)


async def test_a_client_that_never_reads_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And until then the provider is read no further than the client takes it."""
    monkeypatch.setattr(websocket, "STALL_SECONDS", 0.5)
    long = {"replies": ("word " * 600,), "chunk_ms": 500}
    async with realtime(tmp_path, double=long) as house:
        wire = await opened(house)
        for _ in range(4):
            await wire.send("response.create")
            await asyncio.sleep(0)
        await until(lambda: house.attempts, 60)
        assert served(house) == [("openai", "ok")]
        assert house.used == house.billed
        assert house.entries[0].quality == "exact"
        wire.socket._response.close()


STEPS = ("write", "ask", "ask", "speak", "cancel", "wait", "wait")


@pytest.mark.parametrize("seed", [1, 2, 18])
@pytest.mark.parametrize("dies", [False, True])
async def test_whatever_a_call_does_the_ledger_is_the_bill(
    tmp_path: Path, seed: int, dies: bool
) -> None:
    """To the token while the provider lives; never more than the bill when it dies in between."""
    chance = random.Random(seed)
    some = {"replies": ("word " * 12, "Yes."), "pace": {"between": 0.005}}
    deaths = [Rule(kind="die", after=2, probability=0.6)] if dies else []
    async with realtime(tmp_path, deaths, double=_paced(some)) as house:
        for _ in range(12):
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                wire = await opened(house)
                with contextlib.suppress(ConnectionError, aiohttp.ClientError, TimeoutError):
                    await _talk(wire, chance)
                await wire.close()
        await until(lambda: not house.gateway.house.plans.in_use)
        await until(lambda: all(r.outcome != "running" for r in house.doubles["openai"].requests))
        await house.trunkline.engine.settled()
        kept = {entry.attempt for entry in house.entries if entry.quality == "exact"}
        cut = {entry.attempt for entry in house.entries} - kept
        used, billed = house.used, house.billed
        for unit in used.__struct_fields__:
            assert getattr(used, unit) <= getattr(billed, unit)
        assert used == billed or (dies and cut)


async def _talk(wire: Wire, chance: random.Random) -> None:
    """A few steps of a call that is left at some moment."""
    for _ in range(chance.randrange(1, 8)):
        step = chance.choice(STEPS)
        if step == "write":
            await wire.write("One two three.")
        elif step == "ask":
            await wire.send("response.create")
        elif step == "speak":
            await wire.speak("hello there", after=0.6)
        elif step == "cancel":
            await wire.send("response.cancel")
        else:
            kinds = ("response.output_audio.delta", "response.done", "error")
            await wire.until(chance.choice(kinds), seconds=0.5)


# What a client may do wrong.


async def complaint(wire: Wire) -> dict[str, Any]:
    event = await wire.until("error")
    assert event["type"] == "error"
    error: dict[str, Any] = event["error"]
    return error


async def test_what_is_no_event_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    async with realtime(tmp_path, double=FOUR) as house:
        other, wire = await opened(house), await opened(house)
        for text in ("no JSON", "[]", "{", '{"type": 7}', "{}", '{"type":"\\ud800'):
            await wire.socket.send_str(text)
            error = await complaint(wire)
            assert error["type"] == "invalid_request_error"
            assert "JSON" in error["message"]
        await wire.socket.send_bytes(b"\x00\x01")
        assert "binary" in (await complaint(wire))["message"]
        await wire.send("no.such.event")  # the provider's to judge
        assert (await complaint(wire))["code"] == "invalid_value"
        assert (await wire.ask("Count."))["status"] == "completed"
        assert (await other.ask("Count."))["status"] == "completed"
        for one in (wire, other):
            await one.close()


async def test_an_event_that_is_too_large_ends_the_session_alone(tmp_path: Path) -> None:
    async with realtime(tmp_path, double=FOUR) as house:
        other, wire = await opened(house), await opened(house)
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await wire.send("input_audio_buffer.append", audio="A" * (5 << 20))
        # RFC 6455: too big to process; or the connection is gone before that is read
        assert (await wire.until("closed"))["code"] in (1009, 1006)
        await settled(house)
        assert (await other.ask("Count."))["status"] == "completed"
        await other.close()


async def test_the_model_of_a_session_stays(tmp_path: Path) -> None:
    async with realtime(tmp_path, double=FOUR) as house:
        wire = await opened(house)
        for name in (ROUTE, MODEL, f"openai/{MODEL}", None):
            session = {"type": "realtime", "model": name, "instructions": f"I am {name} – ü"}
            await wire.send("session.update", session=session)
            updated = await wire.until("session.updated", "error")
            assert updated["session"]["instructions"] == f"I am {name} – ü"
            assert updated["session"]["model"] == MODEL
        for name in ("openai/gpt-realtime-mini", "gpt-4.1", 7):
            session = {"type": "realtime", "model": name, "instructions": "changed"}
            await wire.send("session.update", event_id="e1", session=session)
            error = await complaint(wire)
            assert (error["param"], error["event_id"]) == ("session.model", "e1")
        hidden = '{"type":"session.\\u0075pdate","session":{"model":"gpt-4.1"}}'
        await wire.socket.send_str(hidden)
        assert (await complaint(wire))["param"] == "session.model"
        assert (await wire.ask("Count."))["status"] == "completed"
        await wire.close()


# Budgets, reloads, the end.


async def test_a_budget_that_is_spent_refuses_the_upgrade(tmp_path: Path) -> None:
    budgets = {"small": {"amount": {"tokens": 1000}, "window": "hour"}}
    async with realtime(tmp_path, double=FOUR, budgets=budgets) as house:
        wire = await opened(house)
        for _ in range(12):
            await wire.ask("Count from one to four, and then say it once more, please.")
        await wire.close()
        await settled(house)
        assert house.used.tokens_in + house.used.tokens_out > 1000
        assert await house.status() == 429


async def test_a_session_counts_against_a_limit_while_it_is_open(tmp_path: Path) -> None:
    limits = {"few": {"amount": {"streams": 1}}}
    async with realtime(tmp_path, limits=limits) as house:
        wire = await opened(house)
        assert await house.status() == 429
        await wire.close()
        await settled(house)
        assert await house.status() == 101


async def test_a_budget_of_recognisers_is_for_transcripts_too(tmp_path: Path) -> None:
    """Nobody takes them out of a session, so it ends."""
    scope = [{"modality": "stt"}]
    budgets = {"ears": {"scope": scope, "amount": {"requests": 1}, "window": "total"}}
    transcription = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    async with realtime(tmp_path, double=FOUR, budgets=budgets) as house:
        first = await opened(house)
        await first.send("session.update", session=transcription)
        await first.until("session.updated")
        assert (await first.ask("Count."))["status"] == "completed"
        second = await opened(house)
        assert (await second.ask("Count."))["status"] == "completed"
        await second.send("session.update", session=transcription)
        error = await complaint(second)
        assert error["code"] == "insufficient_quota"
        assert "ears" in error["message"]
        assert (await second.next()) == {"type": "closed", "code": 1008}
        assert (await first.ask("Count."))["status"] == "completed"
        await first.close()


async def test_a_budget_leads_to_a_cheaper_route(tmp_path: Path) -> None:
    """One for realtime models: a chat's would not do."""
    step = {"at": 0.001, "do": "downgrade", "route": "cheap"}
    budgets = {"all": {"amount": {"requests": 1000}, "window": "hour", "steps": [step]}}
    routes = {
        ROUTE: {"modality": "realtime", "candidates": [f"openai/{MODEL}"]},
        "cheap": {"modality": "realtime", "candidates": ["second/gpt-realtime-mini"]},
    }
    async with realtime(tmp_path, (), (), double=FOUR, routes=routes, budgets=budgets) as house:
        for count in range(1, 100):  # the next sessions, as soon as it is known
            wire = await opened(house)
            assert (await wire.ask("Count."))["status"] == "completed"
            await wire.close()
            await settled(house, count)
            if house.attempts[-1].route == "cheap":
                break
        assert house.attempts[0].model == MODEL
        assert house.attempts[-1].model == "gpt-realtime-mini"
        assert house.used == house.billed


async def test_a_reload_is_for_the_next_session(tmp_path: Path) -> None:
    async with realtime(tmp_path, (), (), double=FOUR) as house:
        wire = await opened(house)
        settings = yaml.safe_load(house.file.read_text("utf-8"))
        settings["routes"][ROUTE]["candidates"] = [f"second/{MODEL}"]
        house.file.write_text(yaml.safe_dump(settings), "utf-8")
        house.gateway.house.reload()
        again = await opened(house)
        assert (await wire.ask("Count."))["status"] == "completed"
        assert (await again.ask("Count."))["status"] == "completed"
        for one in (wire, again):
            await one.close()
        await settled(house, 2)
        assert sorted(served(house)) == [("openai", "ok"), ("second", "ok")]


async def test_a_drain_ends_sessions_between_answers(tmp_path: Path) -> None:
    slow = {"replies": ("word " * 20,), "pace": {"between": 0.05}}
    async with realtime(tmp_path, double=_paced(slow)) as house:
        quiet, busy = await opened(house), await opened(house)
        await busy.write("Count.")
        await busy.send("response.create")
        await busy.until("response.output_audio.delta")
        draining = asyncio.create_task(house.gateway.house.drain(30))
        assert (await quiet.next()) == {"type": "closed", "code": 1001}
        assert (await busy.until("response.done"))["type"] == "response.done"
        assert (await busy.until("closed"))["code"] == 1001
        assert await draining
        assert house.used == house.billed


async def test_a_session_in_which_nobody_says_anything_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "IDLE_SECONDS", 0.3)
    async with realtime(tmp_path) as house:
        wire = await opened(house)
        assert (await wire.next()) == {"type": "closed", "code": 1000}
        await settled(house)
        assert served(house) == [("openai", "ok")]


async def test_an_ill_candidate_is_found_well_by_opening_a_session(tmp_path: Path) -> None:
    """Nobody pays for that."""
    once = [Rule(kind="server_error", nth=(1,))]
    async with realtime(tmp_path, once, ()) as house:
        wire = await opened(house)
        between = await opened(house)  # the next plan is looked at for who is ill
        await until(lambda: any(a.purpose is Purpose.PROBE for a in house.attempts))
        (probe,) = [a for a in house.attempts if a.purpose is Purpose.PROBE]
        assert (probe.connection, probe.outcome, probe.modality) == ("openai", "ok", "realtime")
        again = await opened(house)
        for one in (wire, between, again):
            await one.close()
        await until(lambda: len(served(house)) == 4)
        assert sorted(served(house)) == [
            ("openai", "ok"),
            ("openai", "provider_fault"),
            ("second", "ok"),
            ("second", "ok"),
        ]
        assert house.billed == house.used


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_sent_breaks_nothing(tmp_path: Path, seed: int) -> None:
    """Random events of both kinds, right and wrong; a session beside it loses nothing."""
    chance = random.Random(seed)
    async with realtime(tmp_path, double=FOUR) as house:
        other = await opened(house)
        for _ in range(10):
            wire = await opened(house)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                for _ in range(30):
                    await wire.socket.send_str(some_text(chance))
                    if chance.random() < 0.1:
                        await wire.socket.send_bytes(chance.randbytes(20))
            await wire.close()
        assert (await other.ask("Count."))["status"] == "completed"
        await other.close()
        await until(lambda: len(served(house)) == 11)
        assert {outcome for _, outcome in served(house)} == {"ok"}
        await until(lambda: not house.gateway.house.plans.in_use)
        await until(lambda: all(e.outcome != "running" for e in house.doubles["openai"].requests))


KINDS = (
    *("session.update", "response.create", "response.cancel", "conversation.item.create"),
    *("input_audio_buffer.append", "input_audio_buffer.commit", "conversation.item.delete", "x"),
)


def some_text(chance: random.Random) -> str:
    values: list[Any] = [None, 7, "text", [], {}, {"model": "m"}, {"type": "message"}, "\x00é"]
    event = {
        "type": chance.choice([*KINDS, 7, None]),
        **{name: chance.choice(values) for name in ("session", "audio", "item", "response")},
    }
    text = json.dumps(event)
    return text[: chance.randrange(len(text))] if chance.random() < 0.3 else text
