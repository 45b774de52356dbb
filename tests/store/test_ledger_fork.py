"""A ledger in use while its process forks: each side goes on, and spoils nothing of the other's."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from settlements import ids_in_ledger

COMMON = """
    import os, sys, threading, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from settlements import settlement
    from trunkline.store.ledger import Ledger, Position

    ledger = Ledger(Path(sys.argv[1]) / "ledger.db", patience=10)
    ledger.open()

    def add(name):
        ledger.add([settlement(name)], name, Position(1))

    def ended(*children):
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    add("parent-before")
"""

OUTLIVED = """
    ready, go = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        add("child-early")
        os.write(ready[1], b".")
        os.read(go[0], 1)
        add("child-late")
        os.write(ready[1], b".")
        os.read(go[0], 1)
        sys.exit()  # the end of the interpreter frees whatever it inherited
    os.read(ready[0], 1)
    ledger.close()  # the last one to, unless the child's handle is its own
    os.write(go[1], b".")
    os.read(ready[0], 1)
    found = len(ledger.attempts())
    os.write(go[1], b".")
    print(ended(child), found)
"""

BUSY = """
    stopping = threading.Event()
    work = [lambda: add(f"busy-{time.monotonic_ns()}"), ledger.attempts]

    def busy(n):
        while not stopping.is_set():
            work[n]()

    threads = [threading.Thread(target=busy, args=[n]) for n in range(2)]
    for thread in threads:
        thread.start()
    children = []
    for n in range(6):
        time.sleep(0.01)
        if (child := os.fork()) == 0:
            add(f"child-{n}")
            assert ledger.attempts()
            sys.stdout.flush()
            os._exit(0)
        children.append(child)
    codes = ended(*children)
    stopping.set()
    for thread in threads:
        thread.join()
    calls = {one.attempt.identity.call for one in ledger.attempts()}
    print(codes, sum(call.startswith("child") for call in calls))
"""


@pytest.mark.parametrize(("story", "told"), [(OUTLIVED, "[0] 3"), (BUSY, "[0, 0, 0, 0, 0, 0] 6")])
def test_parent_and_children_go_on_with_the_same_ledger(
    story: str, told: str, tmp_path: Path
) -> None:
    text = textwrap.dedent(COMMON + story)
    ran = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.stdout.strip(), ran.returncode) == (told, 0), ran.stderr
    assert len(ids_in_ledger(tmp_path)) >= 3
