"""Doors 2 and 3: LiveKit's inference protocol and OpenAI-compatible HTTP, on one port.

``app`` takes every request, ``auth`` says whose it is, ``chat`` and its neighbours answer it by the
engine that the in-process door uses. docs/gateway.md has the map for whoever adds a door.
"""
