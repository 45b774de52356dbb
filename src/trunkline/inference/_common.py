"""What the three classes share: their names, their identity, a remote gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from livekit.agents import APIConnectOptions, JobContext, get_job_context
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from ..compose import Wanted, current, new_identity
from ..config import after_output_of
from ..core.models import Candidate, Identity, Modality, ModelRef, Plan
from ..errors import UnsupportedOption, UsageError
from ..runtime.livekit_compat import at_job_end, current_call, current_job
from ..runtime.livekit_options import with_options

Closing = Callable[[], Awaitable[None]]


class Caller:
    """Whose call a wrapper works for: its job's, else its session's, else one of its own.

    ``call`` fixes the call's id, as the members of a stack share one. A job that uses a wrapper
    ends with this process's journal in the ledger.
    """

    def __init__(self, call: str = "", tags: Sequence[str] = (), agent: str = "") -> None:
        self._own = new_identity()
        self._call = call
        self._tags = _words("tags", tags)
        self._agent = agent
        self._known: tuple[JobContext | None, str, Identity] | None = None
        at_job_end(_flush)

    def __call__(self) -> Identity:
        context = get_job_context(required=False)
        call = self._call or current_call() or self._own.call
        if self._known is not None and self._known[0] is context and self._known[1] == call:
            return self._known[2]
        at_job_end(_flush)  # a prewarmed wrapper was made before its job
        identity = self._made(call)
        self._known = context, call, identity
        return identity

    def _made(self, call: str) -> Identity:
        job, room, agent = current_job()
        return Identity(
            call=call,
            org=self._own.org,
            project=self._own.project,
            agent=self._agent or agent,
            room=room,
            job=job,
            tags=self._tags,
        )


async def _flush() -> None:
    await current().aclose()


def given(value: NotGivenOr[Any], otherwise: Any = None) -> Any:
    """``value``, or ``otherwise`` when the caller left it out."""
    return otherwise if value is NOT_GIVEN else value


def wanted(
    name: object, suffix: NotGivenOr[object] = NOT_GIVEN, options: NotGivenOr[object] = NOT_GIVEN
) -> Wanted:
    """What a constructor was asked for, its types checked."""
    suffix = given(suffix) or ""
    if not isinstance(suffix, str):
        raise UsageError(f"a voice or language is a text, not {suffix!r}")
    return Wanted(named(name), suffix, table("extra_kwargs", given(options)))


def named(name: object) -> str:
    """``name``, if it can be the name of a model, provider, route or stack."""
    if not isinstance(name, str) or not name:
        raise UsageError(
            f'model is a text such as "openai/gpt-4.1", "auto" or the name of a stack, not {name!r}'
        )
    return name


def table(what: str, value: object) -> dict[str, Any]:
    """``value`` as options of its own, empty when there are none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{what} is a dict of options by name, not {type(value).__name__}")
    return dict(value)


def wanted_fallback(fallback: NotGivenOr[Any], suffix_key: str = "") -> list[Wanted]:
    """LiveKit's ``fallback``, a name or a FallbackModel or a list of them, as candidates."""
    listed = given(fallback, [])
    return [
        _fallback(one, suffix_key) for one in (listed if isinstance(listed, list) else [listed])
    ]


def _fallback(one: object, suffix_key: str) -> Wanted:
    if isinstance(one, str):
        return wanted(one)
    fields = table("a fallback that is no text", one)
    known = [key for key in ("model", suffix_key, "extra_kwargs") if key]
    for key in fields.keys() - known:
        raise UnsupportedOption(f'a fallback has no "{key}"; it has {", ".join(known)}')
    return wanted(
        fields.get("model"), fields.get(suffix_key, NOT_GIVEN), fields.get("extra_kwargs")
    )


def is_remote(base_url: object, **credentials: object) -> bool:
    """Whether a gateway elsewhere is to serve; refuses one without credentials, and the reverse.

    A key without a gateway is a mistake: the providers' own keys are configured.
    """
    given_url = base_url not in (None, NOT_GIVEN, "")
    for name, value in credentials.items():
        if (value not in (None, NOT_GIVEN, "")) == given_url:
            continue
        raise UnsupportedOption(
            f"base_url is that of a remote gateway: give its {name} too"
            if given_url
            else f"{name} is the credential of a remote gateway: give base_url too, or configure "
            "the provider's own key in trunkline.yaml"
        )
    if given_url and (not isinstance(base_url, str) or not urlsplit(base_url).hostname):
        raise UnsupportedOption(f"base_url is a URL such as https://host/v1, not {base_url!r}")
    return given_url


def remote(
    modality: Modality,
    asked: Wanted,
    base_url: str,
    live: Any,
    conn_options: NotGivenOr[APIConnectOptions] = NOT_GIVEN,
) -> tuple[Plan, Closing]:
    """A plan whose only candidate is ``live``, LiveKit's own client of a gateway elsewhere."""
    name = f"remote:{urlsplit(base_url).hostname}"
    candidate = Candidate(_ref(modality, asked, name), connection=name, live=live)
    plan = Plan((candidate,), after_output=after_output_of(modality))
    return with_options(plan, conn_options) if conn_options else plan, live.aclose


def renamed(plan: Plan, modality: Modality, asked: Wanted) -> Plan:
    """The plan of a remote gateway that is to serve something else from now on."""
    (candidate,) = plan.candidates
    ref = _ref(modality, asked, candidate.connection)
    return replace(plan, candidates=(replace(candidate, ref=ref),))


def _ref(modality: Modality, asked: Wanted, gateway: str) -> ModelRef:
    """What a gateway is asked for. It is the provider: no vendor's price list holds there."""
    ref = ModelRef.parse(asked.name, modality)
    suffix, ref = asked.suffix or ref.suffix, replace(ref, suffix="")
    return ModelRef(gateway, str(ref), suffix)


def ready(
    modality: Modality,
    asked: Wanted,
    fallback: Sequence[Wanted],
    conn_options: NotGivenOr[APIConnectOptions],
    http_session: Any = None,
    sample_rate: int | None = None,
) -> tuple[Plan, Closing]:
    """The plan for what a constructor was asked, with everything built that serves it."""
    trunkline = current()
    plan = trunkline.plan(modality, asked, fallback)
    if conn_options:
        plan = with_options(plan, conn_options)
    return trunkline.build(modality, plan, http_session, sample_rate)


def check_audio(encoding: NotGivenOr[str], sample_rate: NotGivenOr[int]) -> None:
    """Refuse any encoding but the one LiveKit has, and what is no sample rate."""
    if given(encoding, "pcm_s16le") != "pcm_s16le":
        raise UnsupportedOption(f"encoding {encoding!r} is not supported: use 'pcm_s16le'")
    rate = given(sample_rate, 16000)
    if not isinstance(rate, int) or not 8000 <= rate <= 192_000:
        raise UnsupportedOption(f"sample_rate is 8000 to 192000 Hz, not {rate!r}")


def _words(what: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f"{what} is a list of texts, not {value!r}")
    if not all(isinstance(word, str) for word in value):
        raise UsageError(f"{what} is a list of texts, not {list(value)!r}")
    return tuple(value)
