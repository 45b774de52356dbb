"""LiveKit's own FallbackAdapters before the same doubles, with our deadline where they take one."""

from __future__ import annotations

from typing import Any

import aiohttp
from livekit.agents import APIConnectOptions, llm, tts

from trunkline.core.models import Modality

from . import ears
from .column import Column, Heard
from .faults import DEADLINE, Fault
from .vendors import Vendors

WATCHED = 4.0
"""Seconds after which LiveKit's adapter is said to never answer: ten times the deadline."""


def adapter(
    column: Column, fault: Fault, vendors: Vendors, http: aiohttp.ClientSession
) -> tuple[Any, list[Any]]:
    """An adapter over the official plugins before primary and backup, and those plugins."""
    plugins = [
        column.bare(vendors[name].urls[column.vendor], http, kind)
        for name, kind in (("primary", fault.kind), ("backup", ""))
    ]
    if column.modality is Modality.STT:
        return ears.adapter(plugins), plugins
    if column.modality is Modality.LLM:
        return llm.FallbackAdapter(plugins, attempt_timeout=DEADLINE), plugins
    return tts.FallbackAdapter(plugins), plugins


async def first_call(column: Column, fault: Fault, vendors: Vendors) -> Heard:
    """A first call through LiveKit's adapter while the primary has ``fault``."""
    await vendors.reset()
    if rule := column.rule(fault, "primary"):
        await vendors["primary"].inject(rule)
    async with aiohttp.ClientSession() as http:
        client, plugins = adapter(column, fault, vendors, http)
        once = APIConnectOptions(max_retry=0, timeout=DEADLINE)
        given = {"conn_options": once} if column.modality is Modality.TTS else {}
        heard = await column.call(client, within=WATCHED, **given)
        for one in (client, *plugins):
            await one.aclose()
    return heard
