"""What the ledger costs: microseconds a settlement, and how many rows a second are ingested."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median, quantiles

from trunkline.clock import monotonic_ns, new_id, now_ns
from trunkline.core.models import (
    Attempt,
    Charge,
    Entry,
    Identity,
    Modality,
    Quality,
    Settlement,
    Usage,
)
from trunkline.store import LEDGER_NAME, Ingester
from trunkline.store.journal import Journal
from trunkline.store.ledger import Ledger

SETTLEMENTS = 50_000
ROWS_PER_SETTLEMENT = 2
MICROSECONDS_WANTED = 30
ROWS_PER_SECOND_WANTED = 20_000


def main() -> None:
    """Measure both in a fresh directory and print a small table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        took = append(Journal(directory), [settlement(i) for i in range(SETTLEMENTS)])
        Ledger(directory / LEDGER_NAME).open()  # the schema is made once, not by every ingest
        rows_per_second = ingest(directory)
    slowest = quantiles(took, n=1000)[-1]
    print("| ledger | measured | wanted |")
    print("|---|---:|---:|")
    print(f"| settlement, median | {median(took):.1f} us | < {MICROSECONDS_WANTED} us |")
    print(f"| settlement, p99.9 | {slowest:.1f} us | |")
    print(f"| ingest | {rows_per_second:,.0f} rows/s | > {ROWS_PER_SECOND_WANTED:,} rows/s |")


def append(journal: Journal, settlements: list[Settlement]) -> list[float]:
    """Return how long each ``append`` took, in microseconds."""
    took = []
    for record in settlements:
        started = monotonic_ns()
        journal.append(record)
        took.append((monotonic_ns() - started) / 1000)
    journal.close()
    return took


def ingest(directory: Path) -> float:
    """Load the journals in ``directory``; return rows of attempts and entries a second."""
    ingester = Ingester(directory)
    started = monotonic_ns()
    records = ingester.run_once()
    seconds = (monotonic_ns() - started) / 1e9
    ingester.close()
    assert records == SETTLEMENTS
    return records * ROWS_PER_SETTLEMENT / seconds


def settlement(number: int) -> Settlement:
    """An attempt as an agent makes it, the usual fields filled."""
    usage = Usage(tokens_in=1200 + number % 100, tokens_out=48, tokens_cached=1024)
    attempt = Attempt(
        id=new_id(),
        identity=Identity(
            call=f"call-{number // 30}", agent="reception", room=f"room-{number // 30}"
        ),
        modality=Modality.LLM,
        provider="openai",
        model="gpt-4.1-mini",
        connection="env",
        started_ns=now_ns(),
        turn=f"speech-{number // 3}",
        route="chat",
        stack="default",
        provider_request_id=new_id(),
        first_output_after_ns=312_000_000,
        duration_ns=1_204_000_000,
        usage=usage,
    )
    charge = Charge(nanos=556_800, rate="0.4/1.6 per 1M tokens", source="https://openai.com/prices")
    return Settlement(attempt, Entry(new_id(), attempt.id, now_ns(), usage, Quality.EXACT, charge))


if __name__ == "__main__":
    main()
