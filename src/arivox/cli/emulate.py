"""``arivox emulate``: stand-ins for OpenAI Realtime, OpenAI Live and Gemini Live on this machine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated, Literal

import typer

from arivox.cli.common import on_signals, run_loop
from arivox.errors import SettingsError


def emulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8800,
    behaviour: Annotated[
        Literal["dialogue", "echo", "talk"],
        typer.Option(help="dialogue: hears and answers; echo: repeats the caller; talk: never stops."),
    ] = "dialogue",
    api_key: Annotated[str, typer.Option(help="The only key accepted. Empty: any key.")] = "",
    voice: Annotated[str, typer.Option(help="Voice of the dialogue: slt, rms, awb, kal16.")] = "rms",
) -> None:
    """Serve the protocols of OpenAI Realtime, OpenAI Live and Gemini Live without OpenAI and Google.

    Put one of the printed lines into .env.
    """
    run_loop(_serve(host, port, behaviour, api_key, voice))


async def _serve(host: str, port: int, behaviour: str, api_key: str, voice: str) -> None:
    # Imported here: the recogniser is heavy, and only this command needs it.
    from arivox.emulator.brain import Brain
    from arivox.emulator.dialogue import Dialogue
    from arivox.emulator.ears import best_ears
    from arivox.emulator.echo import Echo, Talker
    from arivox.emulator.phrases import PHRASES
    from arivox.emulator.server import EmulatorServer
    from arivox.emulator.voice import best_voice

    if behaviour == "dialogue":
        mouth = await asyncio.to_thread(best_voice, typer.echo, voice)
        ears = await asyncio.to_thread(best_ears, typer.echo)
        brain = Brain(
            {state: [(phrase.text, phrase.value) for phrase in said] for state, said in PHRASES.items()}
        )
        server = EmulatorServer(
            lambda: Dialogue(brain, mouth, ears),
            host=host,
            port=port,
            api_keys={api_key} if api_key else None,
            keep_audio=False,
        )
    else:
        server = EmulatorServer(
            Echo if behaviour == "echo" else Talker,
            host=host,
            port=port,
            api_keys={api_key} if api_key else None,
            keep_audio=False,
        )
    stop = asyncio.Event()
    on_signals(stop.set)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(server)
        except OSError as error:
            raise SettingsError("--port", f"cannot listen on {host}:{port} ({error.strerror})") from error
        typer.echo(f"OPENAI_REALTIME_URL={server.url}")
        typer.echo(f"OPENAI_LIVE_URL={server.live_url}")
        typer.echo(f"GEMINI_LIVE_URL={server.gemini_url}")
        typer.echo(f"listening on port {server.port}")
        await stop.wait()
