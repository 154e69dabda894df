"""An AI that listens and talks: turns by energy, words by ``Ears``, wits by ``Brain``, sound by ``Voice``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from arivox.audio.format import AudioFormat
from arivox.emulator import sound
from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.brain import Action, Brain, Say, Situation, quoted, told_by
from arivox.emulator.session import Line, Session, Turn
from arivox.emulator.speech import Ears, Voice


class Dialogue(Behaviour):
    """One session's AI. ``voice`` and ``ears`` may be shared by sessions; they run in worker threads."""

    listens = True

    def __init__(self, brain: Brain, voice: Voice, ears: Ears) -> None:
        self._brain = brain
        self._voice = voice
        self._ears = ears
        self._session: Session | None = None
        self._words: dict[str, asyncio.Task[str]] = {}
        self._answered: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: list[BaseException] = []

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Keep the session."""
        del connection, now
        self._session = session

    def heard(self, item: Turn, now: float) -> None:
        """Begin to understand the caller's turn."""
        del now
        if self._session is not None:
            self._words[item.id] = self._spawn(self._understand(self._session, item))

    def wanted(self, response: Answer, now: float) -> None:
        """Begin to think about what to say."""
        del now
        if self._session is not None:
            self._spawn(self._speak(self._session, response))

    async def closed(self) -> None:
        """Stop everything that is not finished.

        Raises:
            Exception: What failed in voice, ears or brain.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._failures:
            raise self._failures[0]

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def _understand(self, session: Session, item: Turn) -> str:
        audio_format = item.audio_format
        if audio_format is None:
            return ""
        expected = self._brain.expected(_situation(session, None))
        audio = bytes(item.audio)
        words = await asyncio.to_thread(
            lambda: self._ears.hear(sound.decode(audio, audio_format), audio_format.rate, expected)
        )
        session.transcribed(item, words)
        return words

    async def _speak(self, session: Session, response: Answer) -> None:
        try:
            actions = await self._decide(session, response)
            for action in actions:
                await self._act(session, response, action)
        except Exception:
            # The client must see the turn fail as it would on the service; the cause goes to the owner.
            response.fail("server_error", "The emulator failed to make a response.", time.monotonic())
            raise
        response.end(time.monotonic())

    async def _decide(self, session: Session, response: Answer) -> list[Action]:
        situation = _situation(session, response)
        last = session.last_turn
        told = response.instructions
        if not quoted(told):
            told = told_by(session.last_output) or told
        if quoted(told) or response.out_of_band or last is None or last.id in self._answered:
            return self._brain.open(situation, told)
        self._answered.add(last.id)
        words = self._words.pop(last.id, None)
        return self._brain.answer(situation, last.text if words is None else await words)

    async def _act(self, session: Session, response: Answer, action: Action) -> None:
        if not isinstance(action, Say):
            arguments = msgspec.json.encode(action.arguments).decode()
            response.call(action.name, arguments, time.monotonic())
            return
        if response.done:
            return
        audio = await asyncio.to_thread(self._utter, action.text, response.audio_format)
        if not session.closed:
            response.say(audio, action.text, time.monotonic())

    def _utter(self, text: str, audio_format: AudioFormat) -> bytes:
        pcm = sound.resample(self._voice.say(text), self._voice.rate, audio_format.rate)
        return sound.encode(pcm, audio_format)


def _situation(session: Session, response: Answer | None) -> Situation:
    schemas = response.tools if response is not None else session.tools
    override = Situation(response.instructions if response is not None else "", schemas)
    return override if override.state else Situation(session.instructions, schemas)
