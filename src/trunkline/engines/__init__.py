"""Local speech and language as LiveKit plugins: no key, no network, no cost.

Each module holds one plugin class named after its modality (``TTS``, ``STT``, ``LLM``). They are
loaded by name from the catalogue and imported by nothing else.
"""
