"""Thousands of calls by several processes while a fifth of the requests go wrong.

``python -m pytest -m soak`` plays all of them, ``make test`` a seeded sample.
"""
