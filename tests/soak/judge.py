"""What is right after a soak: calls that were heard, and books that agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trunkline.core.models import Modality, Quality, Usage
from trunkline.doubles import BillLine, RequestLog, tones
from trunkline.store.ledger import Recorded

from .caller import Call, Used
from .vendors import ANSWER, DEADLINE

_SLACK = 5.0
"""Seconds for a busy machine, beside the deadlines."""
LONGEST = 3 * DEADLINE + _SLACK
"""Two candidates and one retry of the last."""
_GROWTH_KIB = 40 * 1024
"""What a process may take after its first half: caches that fill, a model that is loaded."""
_DESCRIPTORS = 16
SEAMS = 3
"""Words that are heard twice, or in part, where one voice follows another."""


@dataclass
class Verdict:
    """``rows`` are the table, ``problems`` what is wrong; no problem, and all is well."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def row(self, name: str, value: object) -> None:
        self.rows.append((name, str(value)))

    def check(self, right: bool, problem: str) -> None:
        if not right:
            self.problems.append(problem)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in self.rows)


def judge_calls(verdict: Verdict, calls: Sequence[Call]) -> None:
    """None silent: every word in its order, or one error that names both candidates."""
    for modality in Modality:
        mine = [call for call in calls if call.modality == modality]
        silence = max((call.silence for call in mine), default=0.0)
        errors = Counter(call.error for call in mine if call.error)
        verdict.row(
            f"{modality} calls", f"{len(mine)}, longest wait {silence:.2f} s, {dict(errors)}"
        )
        wrong = Counter(problem for call in mine if (problem := _problem(call)))
        for problem, count in wrong.items():
            verdict.problems.append(f"{modality}: {count} calls {problem}")


def _problem(call: Call) -> str:
    expected = ANSWER.split() if call.modality == Modality.LLM else tones.words_of(ANSWER)
    if call.error == "never":
        return "were silent"
    if call.silence > LONGEST:
        return f"waited more than {LONGEST:g} s"
    if not call.error:
        lost, cut = missing(expected, call.words)
        if lost:
            return f"lost words without an error: {' '.join(call.words)}"
        return "repeated more than a word a seam" if cut > SEAMS else ""
    stopped = call.modality == Modality.LLM and call.words
    if stopped:
        return "" if call.words == expected[: len(call.words)] else "said other words"
    return "" if len(set(call.causes)) == 2 else f"failed though one was not asked: {call.causes}"


def missing(expected: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """(words that are missing in the order, words beside them)."""
    at = 0
    for word in heard:
        at += at < len(expected) and word == expected[at]
    return len(expected) - at, len(heard) - at


def judge_books(
    verdict: Verdict,
    recorded: Sequence[Recorded],
    bills: dict[str, Sequence[BillLine]],
    requests: dict[str, Sequence[RequestLog]],
) -> None:
    """The ledger of each connection against the books of its vendor."""
    ids = Counter(one.attempt.id for one in recorded)
    verdict.check(max(ids.values()) == 1, "an attempt is in the ledger twice")
    verdict.check(all(len(one.entries) == 1 for one in recorded), "not one settlement each")
    by_connection: defaultdict[str, list[Recorded]] = defaultdict(list)
    for one in recorded:
        by_connection[one.attempt.connection].append(one)
    for connection, mine in sorted(by_connection.items()):
        modality, _, name = connection.partition("-")
        lines = [line for line in bills[name] if _modality(line.endpoint) == modality]
        logs = [log for log in requests[name] if _modality(log.endpoint) == modality]
        _judge_connection(verdict, connection, mine, lines, logs)


def _judge_connection(
    verdict: Verdict,
    connection: str,
    mine: Sequence[Recorded],
    lines: Sequence[BillLine],
    logs: Sequence[RequestLog],
) -> None:
    outcomes = Counter(one.attempt.outcome for one in mine)
    verdict.row(f"{connection} attempts", f"{len(mine)}: {dict(outcomes.most_common())}")
    struck = sum(bool(log.fault) for log in logs)
    verdict.row(f"{connection} requests", f"{len(logs)}, {struck} struck, {len(lines)} billed")
    verdict.check(
        len(lines) <= len(mine), f"{connection}: {len(lines)} billed, {len(mine)} attempts"
    )
    if connection.startswith(("llm", "stt")):  # the plugins of voices do not tell their request
        known = {one.attempt.provider_request_id for one in mine}
        unknown = Counter(log.fault or log.outcome for log in logs if log.id not in known)
        verdict.row(f"{connection} requests without an id in the ledger", dict(unknown))
    lines_by_id = {line.request_id: line for line in lines}
    matched: Counter[str] = Counter()
    differing, invented = 0, 0
    for one in mine:
        line = lines_by_id.get(one.attempt.provider_request_id)
        entry = one.entries[0]
        if line is not None:
            matched[line.request_id] += 1
            exact = entry.quality is Quality.EXACT and one.attempt.outcome == "ok"
            differing += exact and not _same(entry.usage, line.units)
        elif one.attempt.provider_request_id in {log.id for log in logs}:
            invented += entry.quality is Quality.EXACT and entry.usage != Usage()
    verdict.check(not differing, f"{connection}: {differing} exact entries differ from the bill")
    verdict.check(not invented, f"{connection}: {invented} exact entries were never billed")
    verdict.check(
        max(matched.values(), default=1) == 1, f"{connection}: a request has two attempts"
    )
    _judge_totals(verdict, connection, mine, lines)


def _judge_totals(
    verdict: Verdict, connection: str, mine: Sequence[Recorded], lines: Sequence[BillLine]
) -> None:
    """What was served to the end agrees in total; the rest is bounded by what was cut."""
    cut = [one for one in mine if one.attempt.outcome != "ok"]
    for unit in ("tokens_in", "tokens_out", "characters", "audio_in_ns", "audio_out_ns"):
        ours = _total((one.entries[0].usage for one in mine), unit)
        theirs = _total((line.units for line in lines), unit)
        if not ours and not theirs:
            continue
        # A failed attempt's share is an estimate on one side, and none or all on the other.
        bound = _total((one.entries[0].usage for one in cut), unit) + len(cut) * _MOST[unit]
        verdict.row(f"{connection} {unit}", f"{ours}, billed {theirs}, {len(cut)} not to the end")
        verdict.check(abs(ours - theirs) <= bound, f"{connection}: {unit} {ours}, billed {theirs}")


_MOST = {
    "tokens_in": 8,
    "tokens_out": len(ANSWER.split()),
    "characters": len(ANSWER),
    "audio_in_ns": 6_000_000_000,
    "audio_out_ns": 5_000_000_000,
}
"""What one call can use of a unit."""


def judge_processes(verdict: Verdict, processes: Sequence[Used]) -> None:
    """Flat memory, no descriptor and no task left behind."""
    for number, used in enumerate(processes):
        (before, after), (opened, open_now) = used.kib, used.descriptors
        told = f"{before // 1024} -> {after // 1024} MiB, {opened} -> {open_now} descriptors"
        verdict.row(f"process {number}", told)
        verdict.check(after - before < _GROWTH_KIB, f"process {number}: memory {told}")
        verdict.check(open_now - opened <= _DESCRIPTORS, f"process {number}: {told}")
        verdict.check(not used.tasks, f"process {number}: {used.tasks} go on")


def _same(ours: Usage, theirs: Usage) -> bool:
    return (
        ours.tokens_in == theirs.tokens_in
        and ours.tokens_out == theirs.tokens_out
        and abs(ours.characters - theirs.characters) <= 1
        and abs(ours.audio_in_ns - theirs.audio_in_ns) <= 50_000_000
        and abs(ours.audio_out_ns - theirs.audio_out_ns) <= 50_000_000
    )


def _total(usages: Iterable[Usage], unit: str) -> int:
    return sum(getattr(usage, unit) for usage in usages)


def _modality(endpoint: str) -> str:
    return {"chat": "llm", "listen": "stt"}.get(endpoint, "tts")
