"""Write the pages of docs/reference/ from what the program itself reads, raises and tells.

Run without arguments to write, with ``--check`` to fail when a page is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reference_code import NOTE, commands_page, errors_page, events_page

from trunkline.catalog import GROUP, LOCAL, PREFERRED, PROVIDERS, Plugin, Provider, Realtime, Wire
from trunkline.config.schema import keys
from trunkline.core.models import CASCADE, Modality

PAGES = Path(__file__).parents[1] / "docs" / "reference"

EXAMPLE = """\
```yaml
version: 1
project: { org: acme, name: reception }
state: ./state
providers:
  deepgram:
    api_key: ${DEEPGRAM_API_KEY}
  openai: {} # api_key from OPENAI_API_KEY
  our-gpu:
    kind: openai
    base_url: http://10.0.0.5:8000/v1
routes:
  listen:
    modality: stt
    candidates:
      - deepgram/nova-3:en
      - pocketsphinx/en-us
  answer:
    modality: llm
    candidates:
      - model: openai/gpt-4.1
        options: { temperature: 0.4 }
      - our-gpu/llama-3.3-70b
    deadlines: { first_content: 2.5 }
stacks:
  default: { stt: listen, llm: answer, tts: deepgram/aura-2:athena }
```"""


def settings_page() -> str:
    rows = [
        f"| `{path}` | {key.type.label} | {'required' if key.required else key.default} "
        f"| {key.meaning} |"
        for path, key in keys()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            NOTE,
            "",
            "`trunkline.yaml` is read once, at the start. Every mistake in it is told together, "
            "with file, line, key and the nearest valid name. Without a file, every provider whose "
            "variables are set is a connection.",
            "",
            EXAMPLE,
            "",
            "In any text `${NAME}` is replaced from the environment, `${NAME:-default}` too where "
            "the variable is unset or empty; `$${` stands for `${`. Anchors, aliases and tags are "
            "not read.",
            "",
            "A candidate is `provider/model[:suffix]`; the suffix is the language of a recogniser "
            "and the voice of a synthesiser. A name is looked up as a route, then as a stack, then "
            "as a provider; `auto` is the stack `default`, and `local` is always the embedded "
            "voice. A connection with another `kind` than its name is named by its own name in "
            "references.",
            "",
            "| Key | Type | Default | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def providers_page() -> str:
    return "\n".join(
        [
            "# Providers",
            "",
            NOTE,
            "",
            "A cell names the default model and who carries it: `wire` is Trunkline's own client "
            "for OpenAI-compatible chat and realtime sessions, `plugin` the official LiveKit "
            "plugin, which the extra installs (`pip install 'trunkline[deepgram]'`), `engine` one "
            "that comes with Trunkline. Aliases are in brackets.",
            "",
            "| Provider | STT | LLM | TTS | Realtime | Credentials (variable) | Extra |",
            "|---|---|---|---|---|---|---|",
            *(_row(row) for row in PROVIDERS.values()),
            "",
            "## What `auto` takes",
            "",
            "Of the providers that are configured the first in this order, else the embedded one.",
            "",
            *(
                f"- {m}: {', '.join(f'`{name}`' for name in PREFERRED[m])}, then the others in the "
                f"table's order, then `{LOCAL[m]}`"
                for m in CASCADE
            ),
            "",
            "## Providers of other packages",
            "",
            f"A package adds a row by an entry point of the group `{GROUP}`, whose name is the "
            "provider's and whose value is a `trunkline.catalog.Provider`:",
            "",
            "```toml",
            f'[project.entry-points."{GROUP}"]',
            'acme = "acme_voices:PROVIDER"',
            "```",
            "",
            "The row is imported when `acme` is first named, in a reference or in the settings; "
            "`auto` takes it only where the settings list it. A built-in name stays built in.",
            "",
        ]
    )


def _row(row: Provider) -> str:
    name = f"`{row.name}` {row.title}"
    if row.aliases:
        name += f" ({', '.join(f'`{alias}`' for alias in row.aliases)})"
    credentials = "<br>".join(
        f"`{c.name}` ({' or '.join(f'`{v}`' for v in c.variables)})" for c in row.credentials
    )
    served = (_cell(getattr(row, m.value), local=row.local) for m in Modality)
    return f"| {name} | {' | '.join(served)} | {credentials or 'none'} | {row.extra or '–'} |"


def _cell(how: Wire | Plugin | Realtime | None, *, local: bool) -> str:
    if how is None:
        return "–"
    own = not isinstance(how, Plugin)
    carrier = "wire" if own else "engine" if local else "plugin"
    return f"`{how.default_model}` {carrier}" if how.default_model else carrier


PAGES_BY_NAME = {
    "settings.md": settings_page,
    "providers.md": providers_page,
    "commands.md": commands_page,
    "events.md": events_page,
    "errors.md": errors_page,
}


def main() -> int:
    stale = 0
    for name, written in PAGES_BY_NAME.items():
        page, text = PAGES / name, written()
        if page.exists() and page.read_text("utf-8") == text:
            continue
        if "--check" in sys.argv[1:]:
            print(f"docs/reference/{name} is not current: run python scripts/reference.py")
            stale += 1
        else:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, "utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
