"""LiveKit's connection options as deadlines of ours."""

from __future__ import annotations

from dataclasses import replace

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

from ..core.models import Plan


def with_options(plan: Plan, options: APIConnectOptions) -> Plan:
    """``plan`` under the caller's wishes; LiveKit's defaults, chosen by nobody, change nothing."""
    default = DEFAULT_API_CONNECT_OPTIONS
    if options is default:
        return plan
    if options.timeout != default.timeout:
        seconds = options.timeout
        deadlines = replace(plan.deadlines, connect=seconds, first_content=seconds)
        plan = replace(plan, deadlines=deadlines)
    if options.max_retry != default.max_retry:
        plan = replace(plan, retries=options.max_retry)
    if options.retry_interval != default.retry_interval:
        plan = replace(plan, retry_pause=options.retry_interval)
    return plan
