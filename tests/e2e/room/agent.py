"""An agent as anybody writes one for LiveKit: nothing in it knows of Trunkline."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, inference

server = AgentServer()


@server.rtc_session()
async def answer(ctx: JobContext) -> None:
    session = AgentSession[None](
        stt=inference.STT("ears"), llm=inference.LLM("brain"), tts=inference.TTS("mouth")
    )
    await session.start(Agent(instructions="You answer the phone. Be brief."), room=ctx.room)
    await session.say("Welcome to the front desk, how can we help you?")


if __name__ == "__main__":
    cli.run_app(server)
