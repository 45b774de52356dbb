"""The gate's tables and statements, named and together.

``pools`` has a row for each period of a pool, or of a rolling window's slot; ``holdings`` what each
process holds of it. A pool that fills at a rate has ``tat_ns``, the rest of its row is history.
``corrections`` are the entries of the ledger that came after a settlement and are counted.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pools (
    pool TEXT NOT NULL,
    slot_ns INTEGER NOT NULL,
    spent INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    unpriced INTEGER NOT NULL DEFAULT 0,
    tat_ns INTEGER NOT NULL DEFAULT 0,
    touched_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (pool, slot_ns)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holders (
    holder TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    number INTEGER NOT NULL DEFAULT 0,
    notes BLOB NOT NULL DEFAULT x'90'
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holdings (
    pool TEXT NOT NULL,
    slot_ns INTEGER NOT NULL,
    holder TEXT NOT NULL,
    held INTEGER NOT NULL,
    free INTEGER NOT NULL,
    PRIMARY KEY (pool, slot_ns, holder)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holdings_by_holder ON holdings (holder);
CREATE TABLE IF NOT EXISTS demands (
    pool TEXT PRIMARY KEY,
    until_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corrections (
    entry TEXT NOT NULL,
    pool TEXT NOT NULL,
    PRIMARY KEY (entry, pool)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS overrides (
    budget TEXT PRIMARY KEY,
    amount INTEGER NOT NULL,
    until_ns INTEGER NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;
"""

JOIN: Final = "INSERT OR IGNORE INTO holders (holder, pid) VALUES (?, ?)"
HOLDERS: Final = "SELECT holder, pid, number, notes FROM holders WHERE holder <> ?"
IS_HOLDER: Final = "SELECT 1 FROM holders WHERE holder = ?"
HOLDS: Final = """
SELECT 1 FROM holders WHERE holder = :holder AND (
    notes <> x'90' OR EXISTS (SELECT 1 FROM holdings WHERE holdings.holder = :holder)
)
"""
NOTES: Final = "UPDATE holders SET number = ?, notes = ? WHERE holder = ?"
LEAVE: Final = "DELETE FROM holders WHERE holder = ?"

SPENT: Final = "SELECT coalesce(sum(spent), 0) FROM pools WHERE pool = ? AND slot_ns >= ?"
TAT: Final = "SELECT coalesce(max(tat_ns), 0) FROM pools WHERE pool = ? AND slot_ns = ?"
HELD: Final = """
SELECT coalesce(sum(held), 0), coalesce(sum(CASE WHEN holder <> ? THEN free END), 0)
FROM holdings WHERE pool = ? AND slot_ns >= ?
"""
SET_TAT: Final = """
INSERT INTO pools (pool, slot_ns, tat_ns) VALUES (?, ?, ?)
ON CONFLICT (pool, slot_ns) DO UPDATE SET tat_ns = excluded.tat_ns
"""
SPEND: Final = """
INSERT INTO pools (pool, slot_ns, spent, attempts, unpriced, touched_ns) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (pool, slot_ns) DO UPDATE SET
    spent = spent + excluded.spent,
    touched_ns = excluded.touched_ns,
    attempts = attempts + excluded.attempts,
    unpriced = unpriced + excluded.unpriced
"""
IS_KEPT: Final = "SELECT 1 FROM pools WHERE pool = ? AND slot_ns = ?"
CORRECTED: Final = "INSERT OR IGNORE INTO corrections (entry, pool) VALUES (?, ?)"
FORGET_SLOTS: Final = "DELETE FROM pools WHERE pool = ? AND slot_ns < ?"
FORGET_CALLS: Final = """
DELETE FROM pools WHERE instr(pool, ';call=') AND touched_ns BETWEEN 1 AND ?
"""
GRANT: Final = """
INSERT INTO holdings (pool, slot_ns, holder, held, free) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (pool, slot_ns, holder) DO UPDATE SET
    held = held + excluded.held, free = free + excluded.free
"""
HOLD: Final = """
INSERT INTO holdings (pool, slot_ns, holder, held, free) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (pool, slot_ns, holder) DO UPDATE SET held = excluded.held, free = excluded.free
"""
DROP: Final = "DELETE FROM holdings WHERE pool = ? AND slot_ns = ? AND holder = ?"
DROP_ALL: Final = "DELETE FROM holdings WHERE holder = ?"

DEMAND: Final = "INSERT OR REPLACE INTO demands (pool, until_ns) VALUES (?, ?)"
DEMANDS: Final = "SELECT pool FROM demands WHERE until_ns > ?"
FORGET_DEMANDS: Final = "DELETE FROM demands WHERE until_ns <= ?"

OVERRIDE: Final = """
INSERT OR REPLACE INTO overrides (budget, amount, until_ns, reason) VALUES (?, ?, ?, ?)
"""
OVERRIDES: Final = "SELECT budget, amount, until_ns, reason FROM overrides WHERE until_ns > ?"
OVERRIDDEN: Final = "SELECT amount FROM overrides WHERE budget = ? AND until_ns > ?"

HISTORY: Final = """
SELECT pool, slot_ns, spent, attempts, unpriced, tat_ns,
    (SELECT coalesce(sum(held), 0) FROM holdings h
     WHERE h.pool = pools.pool AND h.slot_ns = pools.slot_ns)
FROM pools WHERE pool = ? OR (pool > ? AND pool < ?) ORDER BY slot_ns DESC, pool
"""
