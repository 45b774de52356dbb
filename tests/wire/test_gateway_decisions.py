"""Decisions: LiveKit's unmodified client before any language model, and every way to go wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from gateway_house import AUTH, BROKEN, KEY, SECRET, House, refused, running, serving, token, until
from hypothesis import example, given
from hypothesis import strategies as st
from livekit.agents import APIConnectOptions, APIStatusError, inference
from livekit.agents import llm as livekit
from livekit.agents.inference.decision_model import DecisionModels
from livekit.agents.llm import _systemone as systemone
from livekit.agents.llm.decisions import DecisionResponse, _validate_response
from llm_server import CUT, STALL, Answer, delta, say

from trunkline import catalog
from trunkline.core.models import Purpose
from trunkline.gateway import decision_line
from trunkline.gateway.decision_questions import KINDS, read_answers, task
from trunkline.gateway.decision_request import LIVEKITS

TALK = "user: Let me speak to somebody real.\nassistant: One moment."
QUESTIONS: dict[str, livekit.decisions.Decision] = {
    "handoff": livekit.Probability("The caller requests a human."),
    "mood": livekit.Choice("How is the caller?", {"calm": "at ease", "angry": "upset"}),
    "patience": livekit.Score("How patient is the caller?", ["none", "some", "a lot"]),
}
ASKED = {name: systemone.encode_question(one) for name, one in QUESTIONS.items()}
TOLD = {
    "handoff": 0.75,
    "mood": {"calm": 1, "angry": 3},
    "patience": {"0": 0.5, "1": 0.25, "2": 0.25},
}
DECIDED = say(json.dumps(TOLD))
GARBAGE = say("I would say that the caller ", "is angry.")
WITHOUT_SCHEMAS = refused(400, type="invalid_request_error", code="unsupported")
ONCE = APIConnectOptions(max_retry=0, timeout=20.0)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_SECRET", SECRET)


async def decided(house: House, model: str | None = "answer", **more: Any) -> DecisionResponse:
    """Ask as an agent does; None: by the model that the client has by default."""
    named = {} if model is None else {"model": model}
    client = inference.DecisionModel(base_url=house.url, http_session=house.session, **named)
    asked: Any = {"input": TALK, "decisions": QUESTIONS, "conn_options": ONCE, **more}
    return await client.evaluate(**asked)


def posting(house: House, headers: Any = AUTH, **body: Any) -> Any:
    whole = {"model": "answer", "state": TALK, "questions": ASKED, **body}
    return house.session.post(f"{house.url}/decisions", json=whole, headers=headers)


def is_whole(response: DecisionResponse) -> bool:
    assert response.errors == {}
    handoff, mood, patience = (response.results[name] for name in QUESTIONS)
    assert (handoff.value, mood.value, patience.value) == (0.75, "angry", 0.75)
    assert mood.probabilities == {"calm": 0.25, "angry": 0.75}
    assert patience.probabilities == {0: 0.5, 1: 0.25, 2: 0.25}
    return True


async def test_an_agents_questions_are_one_chat(tmp_path: Path) -> None:
    async with serving(tmp_path, DECIDED) as (house, servers):
        response = await decided(house)
        assert is_whole(response)
        assert (response.model, response.provider) == ("openai/m-openai", "livekit")
        assert (response.input_tokens, response.output_tokens) == (11, 7)
        [attempt] = house.attempts
        assert (attempt.purpose, attempt.outcome, attempt.route) == (Purpose.JUDGE, "ok", "answer")
        assert attempt.identity.session == response.request_id
        [sent] = [one.body for one in servers[0].requests]
    system, user = sent["messages"]
    assert user == {"role": "user", "content": TALK}
    for said in ("The caller requests a human.", '"angry": upset', '- "2": a lot'):
        assert said in system["content"]
    assert '{"handoff": P, "mood": {"calm": P, "angry": P}' in system["content"]
    assert sent["temperature"] == 0
    schema = sent["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(QUESTIONS)


async def test_a_conversation_and_an_empty_one_are_asked_about(tmp_path: Path) -> None:
    context = livekit.ChatContext.empty()
    async with serving(tmp_path, DECIDED) as (house, servers):
        assert is_whole(await decided(house, input=context))
        context.add_message(role="user", content="A human, please.")
        assert is_whole(await decided(house, input=context))
        texts = [one.body["messages"][1]["content"] for one in servers[0].requests]
    assert texts == ["(Nothing has been said.)", "user: A human, please."]


async def test_a_reload_changes_who_decides(tmp_path: Path) -> None:
    async with serving(tmp_path, DECIDED, DECIDED, gateway=deciding("answer")) as (house, _):
        assert (await decided(house, None)).model == "openai/m-openai"
        text = house.file.read_text("utf-8").replace("decisions: answer", "decisions: second/new")
        house.file.write_text(text, "utf-8")
        house.gateway.house.reload()
        assert (await decided(house, None)).model == "second/new"


def deciding(name: str) -> dict[str, Any]:
    return {"keys": {KEY: SECRET}, "decisions": name}


def test_livekits_own_models_are_known() -> None:
    assert set(get_args(DecisionModels)) == LIVEKITS


@pytest.mark.parametrize("name", ["auto", "judge", "second/small", "default"])
async def test_what_only_livekit_serves_is_decided_by_ours(tmp_path: Path, name: str) -> None:
    """The client's default above all: it names a model that no chat completions endpoint has."""
    routes = {
        "talk": {"modality": "llm", "candidates": ["openai/m"]},
        "judge": {"modality": "llm", "candidates": ["second/small"]},
    }
    stack = {"stt": "pocketsphinx", "llm": "talk", "tts": "flite"}
    said: dict[str, Any] = {"routes": routes, "stacks": {"default": stack}}
    said["gateway"] = {"keys": {KEY: SECRET}} if name == "auto" else deciding(name)
    served = "openai/m" if name in ("auto", "default") else "second/small"
    async with serving(tmp_path, DECIDED, DECIDED, **said) as (house, _):
        for asked in (None, *sorted(LIVEKITS), "auto", ""):
            assert (await decided(house, asked)).model == served
        assert (await decided(house, "talk")).model == "openai/m"
        assert (await decided(house, "default")).model == "openai/m"
        assert (await decided(house, "second/x")).model == "second/x"


FAILING = {
    "an error": BROKEN,
    "a cut": Answer([delta(content='{"handoff": 0.'), CUT]),
    "words": GARBAGE,
    "half of the JSON": say(json.dumps(TOLD)[:40]),
    "JSON of something else": say('{"verdict": "yes"}'),
    "a list": say("[0.5, 0.5]"),
    "nothing that can be used": say('{"handoff": "very", "mood": 1}'),
    "a refusal of its own": [delta(refusal="I cannot."), *say()],
    "thoughts alone": say("<think>Hm.", "</think>"),
}


@pytest.mark.parametrize("first", FAILING.values(), ids=FAILING)
async def test_the_next_candidate_answers(tmp_path: Path, first: Any) -> None:
    async with serving(tmp_path, first, DECIDED) as (house, _):
        response = await decided(house)
        assert is_whole(response)
        assert response.model == "second/m-second"
        assert [a.outcome == "ok" for a in house.attempts] == [False, True]
        assert {a.purpose for a in house.attempts} == {Purpose.JUDGE}


async def test_who_cannot_decide_may_still_talk(tmp_path: Path) -> None:
    async with serving(tmp_path, GARBAGE, DECIDED) as (house, servers):
        assert is_whole(await decided(house))
        [failed, _] = house.attempts
        assert (failed.outcome, failed.usage.tokens_out) == ("protocol_violation", 7)
        async with house.ask() as answer:
            assert answer.headers["x-trunkline-model"] == "openai/m-openai"
        assert len(servers[0].requests) == 2


@pytest.mark.parametrize(
    ("told", "errors"),
    [
        ({**TOLD, "handoff": None}, {"handoff"}),
        ({**TOLD, "handoff": 75, "mood": {"sad": 1}}, {"handoff", "mood"}),
        ({"patience": TOLD["patience"]}, {"handoff", "mood"}),
        (dict.fromkeys(TOLD), set(TOLD)),
        ({**TOLD, "more": 1}, set()),
    ],
    ids=["left open", "without meaning", "left out", "all left open", "one that nobody asked"],
)
async def test_what_is_not_answered_is_a_refusal(
    tmp_path: Path, told: dict[str, Any], errors: set[str]
) -> None:
    async with serving(tmp_path, say(json.dumps(told))) as (house, _):
        response = await decided(house)
        assert response.errors == dict.fromkeys(errors, "the model declined this decision")
        assert set(response.results) == set(QUESTIONS) - errors
        async with posting(house) as answer:
            answers = (await answer.json())["answers"]
        assert {n for n, one in answers.items() if one == {"type": "refusal"}} == errors


NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans(), st.none()
)
ANY = st.recursive(
    NUMBER | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
NAMED = st.dictionaries(st.sampled_from(["calm", "angry", "0", "1", "2"]), NUMBER, max_size=3)


@given(st.dictionaries(st.sampled_from(list(QUESTIONS)), NUMBER | NAMED | ANY))
@example({"mood": {"calm": 5e-324, "angry": 0.0}, "patience": {"0": 1e6, "1": 1e-300, "2": 1e6}})
@example({"mood": {"calm": 10**400}, "handoff": -1e-12, "patience": {"2": 3}})
@example({"mood": {"calm": 0.1, "angry": 0.2}, "patience": {"0": 0.1, "1": 0.2, "2": 0.3}})
def test_livekits_client_takes_whatever_a_model_said(told: dict[str, Any]) -> None:
    questions: Any = {
        name: KINDS[one["type"]](**{k: v for k, v in one.items() if k != "type"})
        for name, one in ASKED.items()
    }
    answers = read_answers(json.dumps(told), questions)
    if answers is None:
        assert not any(one is None for one in told.values())
        return
    results, errors = systemone.decode_answers(json.loads(json.dumps(answers)))
    response = DecisionResponse(results=results, errors=errors)
    _validate_response(response, QUESTIONS)
    assert set(response.errors) == {n for n, one in answers.items() if one["type"] == "refusal"}
    for result in response.results.values():
        if result.kind != "probability" and result.probabilities:
            assert sum(result.probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text",
    ["```json\n{}\n```", "```\n{}```", "  {}\n", "<think>A human.</think>{}"],
)
async def test_a_model_may_wrap_its_json(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path, say(text.replace("{}", json.dumps(TOLD)))) as (house, _):
        assert is_whole(await decided(house))


async def test_an_endpoint_without_schemas_is_asked_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and for an hour: it may have been the length of that one request."""
    times = [0]
    monkeypatch.setattr(decision_line, "monotonic_ns", lambda: times[0])
    async with serving(tmp_path, (WITHOUT_SCHEMAS, DECIDED)) as (house, servers):
        for minutes in (0, 59, 61):
            times[0] = minutes * 60_000_000_000
            assert is_whole(await decided(house))
        with_schema = ["response_format" in one.body for one in servers[0].requests]
        assert with_schema == [True, False, False, True]
        assert ["temperature" in one.body for one in servers[0].requests] == with_schema
        assert [a.outcome for a in house.attempts] == ["rejected", "ok", "ok", "ok"]


async def test_it_is_asked_in_words_also_when_another_one_served(tmp_path: Path) -> None:
    async with serving(tmp_path, (WITHOUT_SCHEMAS, DECIDED), DECIDED) as (house, servers):
        served = [(await decided(house)).model for _ in range(2)]
        assert served == ["second/m-second", "openai/m-openai"]
        assert "response_format" not in servers[0].requests[1].body
        assert "response_format" in servers[1].requests[0].body


async def test_what_nobody_takes_is_told_with_every_cause(tmp_path: Path) -> None:
    async with serving(tmp_path, WITHOUT_SCHEMAS) as (house, servers):
        async with posting(house) as answer:
            told = await answer.json()
        assert answer.status == 400
        assert told["error"].count("HTTP 400") == 2
        await decided_fails(house, 400)
        asked = ["response_format" in one.body for one in servers[0].requests]
        assert asked == [True, False, True, False]


async def decided_fails(house: House, status: int) -> APIStatusError:
    with pytest.raises(APIStatusError) as failed:
        await decided(house)
    assert failed.value.status_code == status
    assert failed.value.request_id
    return failed.value


@pytest.mark.parametrize(
    ("answer", "status", "retryable"),
    [(GARBAGE, 502, True), (BROKEN, 502, True), (refused(429), 429, True)],
    ids=["garbage", "an error", "its own limit"],
)
async def test_when_all_fail_the_client_is_told_why(
    tmp_path: Path, answer: Any, status: int, retryable: bool
) -> None:
    route = {"apology": "I am sorry."}
    async with serving(tmp_path, answer, route=route) as (house, _):
        error = await decided_fails(house, status)
        assert error.retryable == retryable
        assert "openai/m-openai" in error.message
        assert error.body["hint"]
        async with posting(house) as said:
            assert said.headers["x-livekit-request-id"] == said.headers["x-request-id"]
            assert ("retry-after" in said.headers) == (status == 429)
            assert (await said.json()).keys() == {"type", "error", "hint"}


async def test_a_budget_is_an_error_and_no_notice(tmp_path: Path) -> None:
    spent = {"window": "day", "amount": {"requests": 1}, "notice": "That was enough."}
    async with serving(tmp_path, DECIDED, budgets={"all": spent}) as (house, servers):
        assert is_whole(await decided(house))
        error = await decided_fails(house, 429)
        assert "budget all" in error.message
        agent = {"Authorization": f"Bearer {token()}"}
        async with posting(house, agent) as answer:
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) > 0
            assert "enough" not in await answer.text()
        assert len(servers[0].requests) == 1


async def test_a_budget_sends_decisions_to_its_cheaper_route(tmp_path: Path) -> None:
    routes = {
        "answer": {"modality": "llm", "candidates": ["openai/m"]},
        "cheap": {"modality": "llm", "candidates": ["second/m"]},
    }
    steps = [{"at": 0.5, "do": "downgrade", "route": "cheap"}]
    budget = {"window": "day", "amount": {"requests": 2}, "steps": steps}
    rules: dict[str, Any] = {"routes": routes, "budgets": {"all": budget}}
    async with serving(tmp_path, DECIDED, DECIDED, **rules) as (house, _):
        reached: list[Any] = []
        house.trunkline.on("budget", reached.append)
        assert (await decided(house)).model == "openai/m"
        await until(lambda: reached)
        assert (await decided(house)).model == "second/m"


CHOICE = {"type": "choice", "instructions": "x", "criteria": {"a": "", "b": ""}}
SCORE = {"type": "score", "instructions": "x", "criteria": ["low", "high"]}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("questions", {"questions": None}),
    ("questions", {"questions": {}}),
    ("questions", {"questions": []}),
    ("questions", {"questions": {"": CHOICE}}),
    ("questions", {"questions": {str(n): CHOICE for n in range(101)}}),
    ("questions.a", {"questions": {"a": "why?"}}),
    ("questions.a.type", {"questions": {"a": {"instructions": "x"}}}),
    ("questions.a.type", {"questions": {"a": {**CHOICE, "type": "guess"}}}),
    ("questions.a.type", {"questions": {"a": {**CHOICE, "type": []}}}),
    ("questions.a", {"questions": {"a": {"type": "noul"}}}),
    ("questions.a.instructions", {"questions": {"a": {**CHOICE, "instructions": " "}}}),
    ("questions.a.instructions", {"questions": {"a": {**CHOICE, "instructions": 7}}}),
    ("questions.a.criteria", {"questions": {"a": {**CHOICE, "criteria": {"one": ""}}}}),
    ("questions.a.criteria", {"questions": {"a": {**CHOICE, "criteria": ["a", "b"]}}}),
    ("questions.a.criteria", {"questions": {"a": {**CHOICE, "criteria": {"": "", "b": ""}}}}),
    ("questions.a.criteria", {"questions": {"a": {**SCORE, "criteria": ["one"]}}}),
    ("questions.a.criteria[1]", {"questions": {"a": {**SCORE, "criteria": ["one", 2]}}}),
    ("questions.'a\\nb'.type", {"questions": {"a\nb": {}}}),
    ("state", {"state": None}),
    ("state", {"state": ["x"]}),
    ("model", {"model": 7}),
]


async def test_each_mistake_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path, DECIDED) as (house, servers):
        for field, body in WRONG:
            async with posting(house, **body) as answer:
                told = await answer.json()
                assert answer.status == 400, (field, told)
                assert told["error"].startswith(f"{field}: "), told
                assert (told["type"], field in told["hint"]) == ("invalid_request_error", True)
                assert answer.headers["x-livekit-request-id"]
                assert "\n" not in told["error"]
        assert servers[0].requests == []
        assert house.attempts == []
        assert is_whole(await decided(house))


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (400, {"data": b"{"}),
        (400, {"data": b"[]"}),
        (401, {"headers": {}}),
        (401, {"headers": {"Authorization": f"Bearer {token(exp=-60)}"}}),
        (403, {"headers": {"Authorization": f"Bearer {token(inference=None)}"}}),
        (404, {"json": {"model": "nobody/x", "state": "", "questions": {"a": CHOICE}}}),
        (404, {"json": {"model": "../x", "state": "", "questions": {"a": CHOICE}}}),
        (404, {"json": {"model": "ears", "state": "", "questions": {"a": CHOICE}}}),
        (405, {"method": "GET"}),
        (413, {"data": b" " * (17 << 20)}),
    ],
)
async def test_every_error_is_written_as_livekits(
    tmp_path: Path, status: int, how: dict[str, Any]
) -> None:
    async with serving(tmp_path, DECIDED) as (house, _):
        asked: Any = {"method": "POST", "headers": AUTH, **how}
        async with house.session.request(url=f"{house.url}/decisions", **asked) as answer:
            assert answer.status == status
            told = await answer.json()
        assert all(isinstance(told[name], str) and told[name] for name in ("type", "error", "hint"))
        assert answer.headers["x-livekit-request-id"]


async def test_a_client_that_gives_up_costs_no_more(tmp_path: Path) -> None:
    slow = Answer([delta(content='{"handoff"'), STALL])
    route = {"deadlines": {"idle": 60}}
    async with serving(tmp_path, slow, route=route) as (house, servers):
        asking = asyncio.create_task(decided(house))
        await until(lambda: servers[0].requests)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: [a.outcome for a in house.attempts] == ["cancelled"])
        await until(lambda: not servers[0].open)


class Deciding(livekit.LLM[Any]):
    """A plugin that takes no form of an answer, and decides all the same."""

    def chat(self, *, chat_ctx: Any, tools: Any = None, conn_options: Any, **more: Any) -> Any:
        assert more == {}
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(livekit.LLMStream):
    async def _run(self) -> None:
        assert self._chat_ctx.messages()[1].text_content == TALK
        send = self._event_ch.send_nowait
        text = livekit.ChoiceDelta(role="assistant", content=json.dumps(TOLD))
        send(livekit.ChatChunk(id="p1", delta=text))
        used = livekit.CompletionUsage(completion_tokens=5, prompt_tokens=9, total_tokens=14)
        send(livekit.ChatChunk(id="p1", usage=used))


async def test_a_plugin_decides_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = catalog.Plugin(target=f"{__name__}:Deciding", model=None)
    row = catalog.Provider(name="deciding", title="Deciding", local=True, llm=how)
    monkeypatch.setitem(catalog.PROVIDERS, "deciding", row)
    said = {"version": 1, "providers": {"deciding": {}}, "gateway": {"keys": {KEY: SECRET}}}
    async with running(tmp_path, said) as house:
        response = await decided(house, "deciding")
    assert is_whole(response)
    assert (response.input_tokens, response.output_tokens) == (9, 5)


def test_names_are_quoted_for_the_model() -> None:
    odd = 'the "caller"\n- is'
    assert json.dumps(odd) in task({odd: KINDS["noul"]("Is it?")})
