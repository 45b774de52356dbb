"""The fault matrix: every fault of the doubles, in every situation, through the public door.

``python -m tests.matrix`` prints it; ``test_*.py`` here are a quick sample of its cells.
"""
