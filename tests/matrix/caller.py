"""The doubles' caller, under the name that the matrix and the tests of recognisers use."""

from trunkline.doubles.caller import RATE, cut, finals, marks, say, speech, times, words

__all__ = ["RATE", "cut", "finals", "marks", "say", "speech", "times", "words"]
