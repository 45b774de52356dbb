"""The stage of ``bench.gateway``: a scripted upstream, and three gateways before it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway_litellm import litellm_command

LITELLM = "LiteLLM"
CHUNKS = 20
FIRST, BETWEEN = 0.3, 0.01
PROMPT = "The caller would like a quiet room for two nights. " * 30
KEY = "sk-5f0c1e9b7a3d4c2f8e6b9a1d"
TICKS = os.sysconf("SC_CLK_TCK")


def chunk(**fields: object) -> bytes:
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench", **fields}
    event = b"data: " + json.dumps(told).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def choice(finish: str | None = None, **delta: str) -> bytes:
    return chunk(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


USAGE = {"prompt_tokens": 30, "completion_tokens": CHUNKS, "total_tokens": 30 + CHUNKS}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ROLE = choice(role="assistant", content="")
WORDS = [choice(content=f"word{n} ") for n in range(CHUNKS)]
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
LAST = choice("stop") + chunk(choices=[], usage=USAGE) + DONE
MESSAGE = {"role": "assistant", "content": "".join(f"word{n} " for n in range(CHUNKS))}
WHOLE = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()


async def upstream() -> None:
    """Print the port; answer ``voice`` in its time and everything else at once."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                if b'"voice"' in body:
                    await asyncio.sleep(FIRST)
                    writer.write(HEAD + ROLE)
                    for word in WORDS:
                        writer.write(word)
                        await asyncio.sleep(BETWEEN)
                    writer.write(LAST)
                elif b'"stream":true' in body.replace(b" ", b""):
                    writer.write(HEAD + ROLE + b"".join(WORDS) + LAST)
                else:
                    start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    writer.write(start + b"Content-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def bare(port: int, base_url: str) -> None:
    """The least that can stand between: uvicorn, aiohttp, bytes through."""
    import aiohttp
    import uvicorn

    sessions: list[aiohttp.ClientSession] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        headers = {"Content-Type": "application/json", "Authorization": "Bearer x"}
        url = f"{base_url}/chat/completions"
        async with sessions[0].post(url, data=body, headers=headers) as answer:
            kind = answer.headers["content-type"].encode()
            start = {"type": "http.response.start", "status": 200}
            await send({**start, "headers": [(b"content-type", kind)]})
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        timeout_keep_alive=300,
    )


@dataclass
class Gateway:
    """One that is measured, and its figures by what was asked. ``process`` None: the upstream."""

    name: str
    port: int
    prefix: str = ""
    process: subprocess.Popen[str] | None = None
    ready: float = 0.0
    warm: float = 0.0
    """Megabytes after the first calls."""
    calls: int = 0
    cpu: dict[str, list[float]] = field(default_factory=dict)
    rate: dict[str, list[float]] = field(default_factory=dict)
    first: dict[int, list[float]] = field(default_factory=dict)

    def request(self, model: str, *, stream: bool) -> bytes:
        """The bytes of a request for ``now`` or ``voice``."""
        messages = [{"role": "user", "content": PROMPT}]
        body = json.dumps({"model": self.prefix + model, "messages": messages, "stream": stream})
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (KEY.encode(), len(body), body.encode())
        )

    def cpu_seconds(self) -> float:
        return sum(map(int, self._stat()[11:13])) / TICKS if self.process else 0.0

    def megabytes(self) -> float:
        return int(self._stat()[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if self.process else 0.0

    def _stat(self) -> list[str]:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8")
        return text.rpartition(") ")[2].split()


@contextlib.contextmanager
def stage(place: Path) -> Iterator[list[Gateway]]:
    """The upstream itself, then every gateway that is there, each in a process of its own."""
    with contextlib.ExitStack() as stack:
        here = [sys.executable, "-m", "bench.gateway_stage"]
        up = stack.enter_context(started([*here, "upstream"], place, None))
        assert up.stdout is not None
        port = int(up.stdout.readline())
        base_url = f"http://127.0.0.1:{port}/v1"
        gateways = [Gateway("no gateway", port)]
        core = max(os.sched_getaffinity(0))
        commands = {
            "bare pass-through": ("", [*here, "bare", "{port}", base_url]),
            "trunkline serve": ("bench/", trunkline(place, base_url)),
        }
        if command := litellm_command():
            commands[LITELLM] = ("bench/", litellm(place, base_url, command))
        for name, (prefix, words) in commands.items():
            free = free_port()
            words = [word.format(port=free) for word in words]
            begun = time.monotonic()
            process = stack.enter_context(started(words, place, core))
            try:
                wait_for(name, free, process)
            except (RuntimeError, TimeoutError) as error:
                if name != LITELLM:
                    raise
                print(f"it takes no part: {error}", flush=True)
                continue
            gateways.append(Gateway(name, free, prefix, process, time.monotonic() - begun))
        yield gateways


def trunkline(place: Path, base_url: str) -> list[str]:
    file = place / "trunkline.yaml"
    file.write_text(
        f"version: 1\nstate: {place}/state\ngateway: {{bearer: [{KEY}]}}\n"
        f"providers: {{bench: {{kind: openai, api_key: x, base_url: {base_url}}}}}\n"
        # without routes the default stack is what is served, and its speech is loaded
        "routes: {answer: {modality: llm, candidates: [bench/now]}}\n",
        "utf-8",
    )
    code = "from trunkline.cli import main; main()"
    return [sys.executable, "-c", code, "serve", "--config", str(file), "--port", "{port}"]


def litellm(place: Path, base_url: str, command: str) -> list[str]:
    models = [
        {
            "model_name": f"bench/{model}",
            "litellm_params": {"model": f"openai/{model}", "api_base": base_url, "api_key": "x"},
        }
        for model in ("now", "voice")
    ]
    file = place / "litellm.json"
    settings = {"model_list": models, "general_settings": {"master_key": KEY}}
    file.write_text(json.dumps(settings), "utf-8")
    return [command, "--config", str(file), "--port", "{port}", "--num_workers", "1"]


@contextlib.contextmanager
def started(words: list[str], place: Path, core: int | None) -> Iterator[subprocess.Popen[str]]:
    """A process, on ``core`` alone or on those of its parent; ended with the block."""
    log = (place / f"{len(list(place.iterdir()))}.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if core is None else log,
        stderr=log,
        text=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # it would ask the network
    )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def cpu_ns(pid: int) -> int:
    """CPU time of a process's threads so far."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text("utf-8").split()[0]) for thread in threads)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(name: str, port: int, process: subprocess.Popen[str]) -> None:
    """Until anything at all is answered; LiteLLM takes its time."""
    for _ in range(4800):
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with status {process.returncode}")
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).close()
            except urllib.error.HTTPError:
                return
            return
        time.sleep(0.05)
    raise TimeoutError(f"{name} does not answer")


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        asyncio.run(upstream())
    else:
        bare(int(sys.argv[2]), sys.argv[3])
