"""``python -m bench [NAME ...]``: run the measurements named, or all, and print their tables.

Each runs in a process of its own, so that none inherits the imports, the memory or the warm caches
of the one before.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import bench


def measurements() -> list[str]:
    """Names of the modules that define ``main``, found without importing them."""
    found = pkgutil.iter_modules(bench.__path__)
    return sorted(
        module.name
        for module in found
        if not module.name.startswith("_")
        and "\ndef main(" in (Path(bench.__path__[0]) / f"{module.name}.py").read_text("utf-8")
    )


def run_all(names: list[str]) -> int:
    """Run each measurement in a process of its own; 1 when any of them failed."""
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", "bench", "--here", name], check=False).returncode:
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    """Measure what is named; 2 for a name that is no measurement."""
    if arguments[:1] == ["--here"]:
        if table := importlib.import_module(f"bench.{arguments[1]}").main():
            print(table)
        return 0
    known = measurements()
    unknown = [name for name in arguments if name not in known]
    if unknown:
        print(
            f"no measurement {', '.join(unknown)}; there are: {', '.join(known) or 'none'}",
            file=sys.stderr,
        )
        return 2
    return run_all(arguments or known)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
