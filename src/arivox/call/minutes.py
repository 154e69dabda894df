"""The minutes of a call: what the store keeps of it, and what it has of an earlier one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog

from arivox.asterisk.messages import Channel
from arivox.call.actions import Notes
from arivox.call.ending import EndReason
from arivox.call.timeline import Timeline
from arivox.conversation.conversation import Conversation
from arivox.conversation.memory.record import CallRecord, Turn
from arivox.conversation.memory.transcript import Transcript
from arivox.conversation.memory.writer import CallMemory, Writer
from arivox.errors import StoreError
from arivox.providers.base import Utterance
from arivox.providers.registry import Provider
from arivox.settings.settings import Settings

log = structlog.get_logger()

_RESUME_S: Final = 0.5  # a store that is slower must not keep the caller waiting


class Minutes:
    """The minutes of one call. Without a ``writer`` nothing is stored, and all of it does nothing."""

    def __init__(
        self, call_id: str, channel: Channel, settings: Settings, writer: Writer | None, timeline: Timeline
    ) -> None:
        self._call_id = call_id
        self._channel = channel
        self._settings = settings
        self._writer = writer
        self._timeline = timeline
        self._memory: CallMemory | None = None
        self._conversation: Conversation | None = None

    async def begin(self, provider: Provider, conversation: Conversation) -> Transcript:
        """Return where the turns of this call go; first take up the call that it goes on, if there is one."""
        limit = provider.history_turns(self._settings)
        transcript = Transcript(self._call_id, self._keep_turn, provider.name, limit)
        if self._writer is None:
            return transcript
        record = CallRecord(
            self._call_id,
            self._channel.id,
            self._channel.caller.number,
            self._channel.dialplan.exten,
            provider.name,
            time.time(),
        )
        if self._settings.memory_resume != "never":
            await self._resume(self._writer, record, provider, conversation)
            transcript.goes_on_from(conversation.history)
        self._conversation = conversation
        self._memory = self._writer.begin(record)
        return transcript

    def recorded(self, path: Path) -> None:
        """Note where the recording is."""
        if self._memory is not None:
            self._memory.update(recording=str(path.resolve()))

    def noted(self, notes: Notes) -> None:
        """Take what the agent noted."""
        self._timeline.add("note", text=notes.notes[-1] if notes.notes else "", call_back=notes.call_back)
        if self._memory is not None:
            self._memory.update(notes=list(notes.notes), call_back=notes.call_back)

    def end(self, reason: EndReason) -> None:
        """Note the end."""
        if self._memory is not None:
            self._keep_state()
            self._memory.end(reason.value)

    async def _resume(
        self, writer: Writer, record: CallRecord, provider: Provider, conversation: Conversation
    ) -> None:
        settings = self._settings
        try:
            async with asyncio.timeout(_RESUME_S):
                saved = await writer.resume(settings.memory_resume, record, settings.memory_resume_within_s)
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {_RESUME_S:g} s"
            log.warning("what was said earlier is not known; the call begins anew", error=why)
            return
        if saved is None:
            return
        limit = provider.history_turns(settings)
        turns = saved.turns[-limit:] if limit else []
        said = [Utterance("caller" if turn.speaker == "user" else "agent", turn.text) for turn in turns]
        conversation.resume(saved.record.state, saved.record.known, said)
        self._timeline.add(
            "memory.resumed", call=saved.record.call, turns=len(said), state=conversation.state
        )
        log.info("goes on from an earlier call", earlier=saved.record.call, turns=len(said))

    def _keep_turn(self, turn: Turn) -> None:
        if self._memory is not None:
            self._keep_state()
            self._memory.add(turn)

    def _keep_state(self) -> None:
        if self._memory is not None and self._conversation is not None:
            self._memory.update(state=self._conversation.state, known=self._conversation.known)
