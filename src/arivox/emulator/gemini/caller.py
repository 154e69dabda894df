"""The caller's side of a session: the audio, and the turns that are found in it or told."""

from __future__ import annotations

from typing import Any, Final

from arivox.audio.format import AudioFormat
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.gemini.audio import Intake
from arivox.emulator.gemini.config import Setup
from arivox.emulator.gemini.conversation import Conversation, Entry
from arivox.emulator.gemini.floor import Floor
from arivox.emulator.gemini.messages import Blob
from arivox.emulator.gemini.outlet import Outlet
from arivox.emulator.hearing import Hearing
from arivox.emulator.record import Record
from arivox.emulator.vad import SpeechStarted

_VAD_ONSET_MS: Final = 60  # what ``EnergyVad`` needs in any case


class Caller:
    """Hears the caller and tells the floor when a turn begins and ends."""

    def __init__(
        self,
        behaviour: Behaviour,
        outlet: Outlet,
        record: Record,
        conversation: Conversation,
        setup: Setup,
        floor: Floor,
        *,
        transcribes: bool,
        marks_end: bool,
    ) -> None:
        """``marks_end`` says whether the last piece of a transcript says that it is the last."""
        self._behaviour = behaviour
        self._outlet = outlet
        self._record = record
        self._conversation = conversation
        self._setup = setup
        self._floor = floor
        self._transcribes = transcribes and setup.input_audio_transcription is not None
        self._marks_end = marks_end
        self._intake = Intake()
        self._hearing = Hearing(setup.detection, self._intake.format, listen=behaviour.listens)
        self._turn_id = ""
        self._turn_at_ms = 0
        self._onset: tuple[int, float] | None = None
        """Where a turn would begin, and what has to be heard before it does."""

    @property
    def format(self) -> AudioFormat:
        """Return the format of the audio that came last."""
        return self._intake.format

    @property
    def received_ms(self) -> float:
        """Return the length of all audio that ever came."""
        return self._hearing.received_ms

    def hear(self, blob: Blob, now: float) -> None:
        """Take the next audio.

        Raises:
            RefusedError: It is no audio that the service takes.
        """
        before = self._intake.format
        audio = self._intake.take(blob.mime_type, blob.data)
        if self._intake.format is not before:
            self._onset = None
            self._hearing.configure(self._setup.detection, self._intake.format)
        if self._record.keep_audio:
            self._record.audio_received += audio
        events = self._hearing.append(audio)
        self._behaviour.audio(audio, now)
        for event in events:
            if isinstance(event, SpeechStarted):
                wait_ms = max(self._setup.onset_ms - _VAD_ONSET_MS, 0)
                self._onset = (event.start_ms, self.received_ms + wait_ms)
                self._commit_onset(now)
            elif self._onset is not None:
                self._onset = None  # too short for speech
            else:
                self.stopped(now, event.end_ms)
        self._commit_onset(now)
        if self._setup.manual and not self._floor.caller_speaks:
            self._hearing.clear()

    def flush(self, now: float) -> None:
        """End the turn: no more audio comes for a while."""
        self._onset = None
        if self._floor.caller_speaks:
            self.stopped(now)
        self._hearing.take()

    def started(self, now: float, start_ms: int | None = None) -> str:
        """Find that the caller speaks, which interrupts the model; return the coming turn's id."""
        if not self._floor.caller_speaks:
            self._floor.caller_speaks = True
            self._turn_id = self._outlet.new_id("content")
            self._turn_at_ms = int(self.received_ms) if start_ms is None else start_ms
            self._signal("ACTIVITY_START", self._turn_at_ms)
            if self._setup.interrupts:
                self._floor.halt(now)
            self._behaviour.interrupted(now)
        return self._turn_id

    def stopped(self, now: float, end_ms: int | None = None) -> Entry:
        """Find that the turn is over; it is answered when the model is free."""
        self.started(now)
        self._floor.caller_speaks = False
        end_ms = int(self.received_ms) if end_ms is None else end_ms
        self._signal("ACTIVITY_END", end_ms)
        audio = self._hearing.cut(self._turn_at_ms, end_ms)
        form = self._intake.format
        entry = Entry(self._turn_id, "user", "", bytearray(audio), form, form.ms(len(audio)))
        self._conversation.entries.append(entry)
        self._behaviour.heard(entry, now)
        self._floor.answer_caller(now)
        return entry

    def transcribed(self, turn: Entry, transcript: str) -> None:
        """Send what the caller said in pieces."""
        turn.text = transcript
        if not self._transcribes:
            return
        words = transcript.split(" ") if transcript else []
        for index, word in enumerate(words):
            piece: dict[str, Any] = {"text": f" {word}" if index else word}
            if self._marks_end and index == len(words) - 1:
                piece["finished"] = True
            self._outlet.content(inputTranscription=piece)

    def _commit_onset(self, now: float) -> None:
        if self._onset is not None and self.received_ms >= self._onset[1]:
            start_ms, self._onset = self._onset[0], None
            self.started(now, start_ms)

    def _signal(self, kind: str, at_ms: float) -> None:
        if self._setup.explicit_vad_signal:
            self._outlet.emit(voiceActivity={"type": kind, "audioOffset": f"{at_ms / 1000:g}s"})
