"""The engine: one attempt loop, its gate and meter, and the LiveKit classes that stand on it."""
