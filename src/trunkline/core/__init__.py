"""Pure decisions on plain data: no I/O, no clock, no environment, no livekit, no database."""
