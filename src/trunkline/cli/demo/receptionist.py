"""The demo's agent: an ordinary LiveKit ``Agent`` with one tool, as a user would write it."""

from __future__ import annotations

from livekit.agents import Agent, function_tool

INSTRUCTIONS = (
    "You are the receptionist of a restaurant and answer its telephone. Keep answers short. "
    "The opening hours are eleven in the morning until ten at night, every day. "
    "Book tables with book_table."
)


class Receptionist(Agent):
    """Answers a restaurant's telephone; bookings are kept for the length of the call."""

    def __init__(self) -> None:
        super().__init__(instructions=INSTRUCTIONS)
        self.bookings: list[tuple[int, str]] = []

    @function_tool
    async def book_table(self, people: int, time: str) -> str:
        """Book a table.

        Args:
            people: how many people will come
            time: when they will come, as the caller said it
        """
        self.bookings.append((people, time))
        return f"A table for {people} at {time} is booked."
