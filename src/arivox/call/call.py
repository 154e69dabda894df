"""The life of one call: answer, media, AI and conversation, and the single way out.

A call is one task group. Whatever ends it calls ``end``; then the same closing runs once: stop the AI, free
the media, take down what stands in Asterisk, and hang the caller up or give them back to the dialplan.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import Channel
from arivox.asterisk.persist import attempt, insist
from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, decode, encode
from arivox.audio.level import Leveller
from arivox.call.actions import Actions, Notes
from arivox.call.ending import STATUS_VARIABLE, EndReason
from arivox.call.exchange import Exchange
from arivox.call.legs import Legs
from arivox.call.timeline import Timeline, Watcher
from arivox.conversation.conversation import Conversation
from arivox.conversation.flow import HIDDEN
from arivox.conversation.memory.record import CallRecord, Turn
from arivox.conversation.memory.transcript import Transcript
from arivox.conversation.memory.writer import CallMemory, Writer
from arivox.conversation.prompts import Prompts
from arivox.conversation.state import CHANNEL
from arivox.conversation.tools.box import ToolBox
from arivox.errors import (
    ArivoxError,
    AsteriskError,
    ChannelGoneError,
    PortsExhaustedError,
    SettingsError,
    StoreError,
)
from arivox.logs import mask
from arivox.media.clock import Pacer
from arivox.media.recorder import Recorder
from arivox.media.rtp.link import RtpLink
from arivox.media.rtp.ports import PortRange
from arivox.providers.base import Utterance
from arivox.providers.registry import Provider
from arivox.settings.settings import Settings
from arivox.tools import CallInfo

log = structlog.get_logger()

T = TypeVar("T")

PROVIDER_ARGUMENT: Final = "provider="
PROVIDER_VARIABLE: Final = "ARIVOX_PROVIDER"

_CHECK_EVERY_S: Final = 0.25
_FAILURE_MEDIA_S: Final = 2.0
_EVENT_S: Final = 0.3  # an event may come so much later than the answer to a request
_RESUME_S: Final = 0.5  # a store that is slower must not keep the caller waiting


@dataclass(frozen=True)
class CallContext:
    """What every call shares."""

    settings: Settings
    ari: AriClient
    pacer: Pacer
    ports: PortRange
    rtp_host: str
    """Address that Asterisk is told to send RTP to."""
    executor: Executor
    """One thread for slow disk work."""
    choose_provider: Callable[[str, str], tuple[Provider, Prompts]]
    """Finds a provider by its name (empty: the service's own), for an error that names where the name stood.
    Raises SettingsError."""
    expect_channel: Callable[[str], asyncio.Future[Channel]]
    """Arms a wait for a channel of ours to enter the application."""
    toolbox: ToolBox
    connect: Callable[[str, str, str], None]
    """Leaves a bridge, the caller's channel in it and a colleague's to themselves, until one hangs up."""
    watchers: tuple[Watcher, ...] = ()
    memory: Writer | None = None
    """Where turns are stored; None: nowhere."""


class Call:
    """One call. ``run`` is its whole life; ``end`` may be called at any moment, from any callback."""

    def __init__(self, channel: Channel, args: Sequence[str], context: CallContext) -> None:
        self.id = secrets.token_hex(4)
        self.channel = channel
        self.args = tuple(args)
        self.legs = Legs(context.ari, channel, self.id, context.expect_channel)
        self.media_id = self.legs.media_id
        self.bridge_id = self.legs.bridge_id
        self.timeline = Timeline(self.id, watchers=context.watchers)
        self.conversation: Conversation | None = None
        """Set once it is known which AI speaks."""
        self.recording: Path | None = None
        self._context = context
        self._settings = context.settings
        self._ari = context.ari
        self._started = time.monotonic()
        self._ended: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self._untidy = False
        self._released = False
        self._talking = False  # the media path was up
        self._creating: set[asyncio.Task[Any]] = set()
        self._link: RtpLink | None = None
        self._exchange: Exchange | None = None
        self._provider = "-"
        self._recorder: Recorder | None = None
        self._memory: CallMemory | None = None
        self._leveller: Leveller | None = None
        self._law: Law = "ulaw"
        self._silence = ULAW.silence
        self._gone = asyncio.Event()  # the caller, from the application
        self._connected = False  # caller and colleague hear each other: the rest is theirs
        self._actions = Actions(
            context.settings,
            context.ari,
            channel,
            self.legs,
            self.timeline,
            self.end,
            self._let_go,
            self._on_noted,
        )

    def __repr__(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        heard = self._exchange.playout.heard_total_ms / 1000 if self._exchange is not None else 0.0
        state = self.conversation.state if self.conversation is not None else "-"
        return (
            f"<Call {self.id} {mask(self.channel.caller.number)} {state} "
            f"{minutes:02d}:{seconds:02d} rtp {self._provider} heard={heard:.1f}s>"
        )

    # --- from outside ---

    async def run(self) -> EndReason:
        """Live the whole life of the call. Returns why it ended; never raises an ArivoxError."""
        with structlog.contextvars.bound_contextvars(call=self.id):
            caller = self.channel.caller.number
            self.timeline.add("call.started", caller=caller, exten=self.channel.dialplan.exten)
            log.info(
                "call",
                caller=caller if self._settings.log_full_numbers else mask(caller),
                exten=self.channel.dialplan.exten,
                channel=self.channel.id,
            )
            reason = EndReason.INTERNAL_ERROR
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._set_up(group))
                    group.create_task(self._watch())
                    reason = await self._ended
                    raise _Ended
            except* _Ended:
                pass
            except* Exception as errors:
                for error in errors.exceptions:
                    log.error("the call failed by a bug of ours", exc_info=error)
                reason = EndReason.INTERNAL_ERROR
            finally:
                await self._close(reason)
            return reason

    def end(self, reason: EndReason) -> None:
        """End the call now. The first reason counts."""
        if not self._ended.done():
            self._ended.set_result(reason)

    def caller_gone(self) -> None:
        """Hear that the caller's channel left: there is nobody to speak to."""
        self._gone.set()
        self.legs.caller_gone()
        # Who was let go leaves too, and that may be heard of first.
        self.end(EndReason.TRANSFERRED if self._released else EndReason.CALLER_HANGUP)

    def media_gone(self) -> None:
        """Hear that our media channel vanished from Asterisk."""
        if not self._ended.done():
            log.error("Asterisk took the media channel down")
        self.end(EndReason.ASTERISK_FAILED)

    def dtmf(self, digit: str) -> None:
        """Hear a key of the caller's phone."""
        hidden = self.conversation is not None and self.conversation.hides_keys
        self.timeline.add("caller.dtmf", digit=HIDDEN if hidden else digit)
        log.info("key pressed")
        if self._exchange is not None:
            self._exchange.key(digit)

    def leg_gone(self, channel_id: str, cause: int) -> None:
        """Hear that a channel that we made left Asterisk."""
        if channel_id == self.media_id:
            self.media_gone()
        else:
            self.legs.leg_gone(channel_id, cause)

    @property
    def leg_ids(self) -> tuple[str, ...]:
        """Return the channels of ours that Asterisk must have."""
        media = (self.media_id,) if self._talking else ()
        return (*media, self.legs.out_id) if self.legs.out_made else media

    # --- set-up ---

    async def _set_up(self, group: asyncio.TaskGroup) -> None:
        try:
            audio, (provider, prompts) = await asyncio.gather(self._choose_audio(), self._choose_provider())
            self._law = "alaw" if audio is ALAW else "ulaw"
            if self._settings.target_rms:
                self._leveller = Leveller(
                    self._settings.target_rms, self._settings.min_rms, self._settings.max_gain
                )
            self._provider = provider.name
            instruction = provider.instruction(self._settings)
            conversation = self.conversation = Conversation(
                prompts,
                instruction,
                variables=await self._variables(prompts),
                tools=self._context.toolbox.with_endpoints(prompts.endpoints),
                destinations={name: to.what for name, to in self._settings.destinations.items()},
            )
            transcript = await self._remember(provider)
            exchange = self._exchange = Exchange(
                self._settings,
                audio,
                conversation,
                self.timeline,
                transcript,
                self._actions,
                self._info,
                provider.new_session,
                self.end,
            )
            self._actions.voice, self._actions.conversation = exchange, conversation
            self.timeline.add("provider.chosen", name=provider.name, model=provider.model(self._settings))
            # The port comes first: a caller who cannot be given one is not answered.
            link = self._link = RtpLink.open(
                audio,
                exchange.playout,
                self._context.pacer,
                self._context.ports,
                self.id,
                log_packets=self._settings.log_level == "debug",
            )
            exchange.wake = link.wake
            link.on_broken = lambda: self.end(EndReason.INTERNAL_ERROR)
            connecting = group.create_task(exchange.connect())
            if self._settings.answer == "when_ready":
                await self._ari.ring(self.channel.id)
                await connecting
            await self._build_media(link, audio)
            self._record(audio)
            self._silence = audio.silence
            link.start(self._on_caller_audio, Discreet(self._recorder, self) if self._recorder else None)
            self._talking = True
            self.timeline.add("media.up", codec=audio.name, port=link.port)
        except PortsExhaustedError as error:
            log.error("a caller cannot be served", error=str(error))
            self.end(EndReason.NO_PORTS)
        except SettingsError as error:
            log.error("a caller cannot be served", error=str(error))
            self.end(EndReason.INTERNAL_ERROR if self._exchange is not None else EndReason.PROVIDER_FAILED)
        except ArivoxError as error:
            # Many a refusal only means that the caller has hung up, and its event is still on the way: until
            # their channel has left Asterisk altogether, nothing else tells.
            if isinstance(error, ChannelGoneError):
                await asyncio.sleep(_EVENT_S)
            if await self._caller_has_left():
                log.debug("the caller hung up during set-up", error=str(error))
                self.end(EndReason.CALLER_HANGUP)
            else:
                log.error("the call could not be set up", error=str(error))
                self.end(EndReason.ASTERISK_FAILED)

    async def _caller_has_left(self) -> bool:
        try:
            await self._ari.channel(self.channel.id)
        except ChannelGoneError:
            return True
        except AsteriskError:
            return False  # Asterisk is in trouble: that is the reason to give
        return False

    async def _choose_audio(self) -> AudioFormat:
        codec = self._settings.audio_codec
        if codec == "auto":
            native = await self._ari.variable(self.channel.id, "CHANNEL(audionativeformat)")
            # With several codecs agreed on, the first is the one in use.
            codec = "alaw" if native.strip("()").split("|")[0] == "alaw" else "ulaw"
        return ALAW if codec == "alaw" else ULAW

    async def _choose_provider(self) -> tuple[Provider, Prompts]:
        """Return the AI of this call: by the argument of Stasis(), the channel variable, or the settings."""
        for argument in self.args:
            if argument.strip().lower().startswith(PROVIDER_ARGUMENT):
                return self._context.choose_provider(argument.strip()[len(PROVIDER_ARGUMENT) :], argument)
        name = await self._ari.variable(self.channel.id, PROVIDER_VARIABLE)
        return self._context.choose_provider(name, PROVIDER_VARIABLE)

    async def _variables(self, prompts: Prompts) -> dict[str, str]:
        """Return what the prompts may speak of from the start."""
        channel = self.channel
        names = prompts.channel_variables
        values = await asyncio.gather(*(self._ari.variable(channel.id, name) for name in names))
        return {
            "call.id": self.id,
            "call.exten": channel.dialplan.exten,
            "caller.number": channel.caller.number,
            "caller.name": channel.caller.name,
            **{f"{CHANNEL}{name}": value for name, value in zip(names, values, strict=True)},
        }

    def _info(self) -> CallInfo:
        conversation = self.conversation
        assert conversation is not None
        return CallInfo(
            self.id,
            self.channel.id,
            self.channel.caller.number,
            self.channel.dialplan.exten,
            conversation.state,
            conversation.known,
            conversation.secrets,
        )

    async def _build_media(self, link: RtpLink, audio: AudioFormat) -> None:
        entered = self._context.expect_channel(self.media_id)
        _, external, _ = await asyncio.gather(
            self._create(self._answer()),
            self._create(
                self._ari.external_media(self.media_id, self._context.rtp_host, link.port, audio.name)
            ),
            self._create(self._ari.create_bridge(self.bridge_id)),
        )
        link.expect(self._asterisk_address(external))
        try:
            async with asyncio.timeout(self._settings.ari_request_timeout_s):
                await entered
        except TimeoutError:
            raise AsteriskError(
                "the media channel did not enter the application", hint="Is res_stasis loaded?"
            ) from None
        await self._create(self._ari.add_to_bridge(self.bridge_id, self.channel.id, self.media_id))

    async def _answer(self) -> None:
        await self._ari.answer(self.channel.id)
        self.timeline.add("call.answered")

    def _asterisk_address(self, external: Channel) -> tuple[str, int] | None:
        if self._settings.rtp_source_check == "learn":
            return None
        if external.rtp_address is None:
            log.warning("Asterisk did not name its RTP address; the first sender is accepted")
        return external.rtp_address

    def _create(self, request: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Begin a request whose effect must not be lost sight of: it is awaited even if we are cancelled."""
        task = asyncio.ensure_future(request)
        self._creating.add(task)
        task.add_done_callback(self._created)
        return asyncio.shield(task)

    def _created(self, task: asyncio.Task[Any]) -> None:
        self._creating.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a request of the set-up failed", error=str(error))

    def _record(self, audio: AudioFormat) -> None:
        if not self._settings.enable_audio_recording:
            return
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{self.id}.wav"
        self.recording = self._settings.recordings_dir / name
        if self._memory is not None:
            self._memory.update(recording=str(self.recording.resolve()))
        self._recorder = Recorder(self.recording, audio, self._context.executor)
        self._recorder.start()

    async def _remember(self, provider: Provider) -> Transcript:
        """Return where the turns of this call go; first take up the call that it goes on, if there is one."""
        limit = provider.history_turns(self._settings)
        transcript = Transcript(self.id, self._keep_turn, provider.name, limit)
        writer = self._context.memory
        if writer is None:
            return transcript
        record = CallRecord(
            self.id,
            self.channel.id,
            self.channel.caller.number,
            self.channel.dialplan.exten,
            provider.name,
            time.time(),
        )
        if self._settings.memory_resume != "never":
            await self._resume(writer, record, provider)
            if self.conversation is not None:
                transcript.goes_on_from(self.conversation.history)
        self._memory = writer.begin(record)
        return transcript

    async def _resume(self, writer: Writer, record: CallRecord, provider: Provider) -> None:
        settings = self._settings
        try:
            async with asyncio.timeout(_RESUME_S):
                saved = await writer.resume(settings.memory_resume, record, settings.memory_resume_within_s)
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {_RESUME_S:g} s"
            log.warning("what was said earlier is not known; the call begins anew", error=why)
            return
        if saved is None or self.conversation is None:
            return
        limit = provider.history_turns(settings)
        turns = saved.turns[-limit:] if limit else []
        said = [Utterance("caller" if turn.speaker == "user" else "agent", turn.text) for turn in turns]
        self.conversation.resume(saved.record.state, saved.record.known, said)
        self.timeline.add(
            "memory.resumed", call=saved.record.call, turns=len(said), state=self.conversation.state
        )
        log.info("goes on from an earlier call", earlier=saved.record.call, turns=len(said))

    def _keep_turn(self, turn: Turn) -> None:
        if self._memory is not None:
            self._keep_state()
            self._memory.add(turn)

    def _keep_state(self) -> None:
        if self._memory is not None and self.conversation is not None:
            self._memory.update(state=self.conversation.state, known=self.conversation.known)

    # --- the audio path ---

    def _on_caller_audio(self, data: bytes) -> None:
        assert self._exchange is not None
        if self._ended.done():
            return
        if self.private or self._actions.deaf:
            data = self.silent(data)
        if self._leveller is not None:
            data = encode(self._leveller.process(decode(data, self._law)), self._law)
        self._exchange.hear(data)

    def silent(self, audio: bytes) -> bytes:
        """Return as much silence."""
        return self._silence * (len(audio) // len(self._silence))

    @property
    def private(self) -> bool:
        """Return whether nobody may hear the caller: they key in something secret."""
        return self.conversation is not None and self.conversation.private

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            if self._exchange is not None:
                self._exchange.check(time.monotonic())

    # --- the way out ---

    @property
    def released(self) -> bool:
        """Return whether the caller's channel is no longer ours."""
        return self._released or not self._caller_present

    @property
    def _caller_present(self) -> bool:
        return not self._gone.is_set()

    @property
    def untidy(self) -> bool:
        """Return whether something of it may be left in Asterisk."""
        return self._untidy or self.legs.untidy

    def _let_go(self, gone: bool) -> None:
        """Hear that the caller is no longer ours, but a colleague's or the dialplan's; or is ours again."""
        self._released = gone
        if gone and self.legs.out_id and self._caller_present:
            self._connected = True
            self._context.connect(self.bridge_id, self.channel.id, self.legs.out_id)

    def _on_noted(self, notes: Notes) -> None:
        self.timeline.add("note", text=notes.notes[-1] if notes.notes else "", call_back=notes.call_back)
        if self._memory is not None:
            self._memory.update(notes=list(notes.notes), call_back=notes.call_back)

    async def _close(self, reason: EndReason) -> None:
        self.timeline.add("call.ended", reason=reason.value)
        closing: asyncio.Future[None] | None = None
        try:
            if self._exchange is not None:
                self._exchange.stop()
                # Beside the rest: an AI that takes its time to count what was used must not hold the caller.
                closing = asyncio.ensure_future(self._exchange.close())
            if self._creating:
                await asyncio.wait(self._creating)
            if self._exchange is not None:
                await self._exchange.stop_tools()
            if not self._connected:
                await self.legs.drop()
                await self._try("take the bridge down", self._ari.destroy_bridge(self.bridge_id))
            await self._try("take the media channel down", self._ari.hang_up(self.media_id))
            if self._link is not None:
                await self._link.close()
        finally:
            # Whatever went wrong above, nobody is left waiting in silence.
            try:
                await self._release_caller(reason)
            finally:
                if closing is not None:
                    await closing
        if self._memory is not None:
            self._keep_state()
            self._memory.end(reason.value)
        # Last, for a slow disk must not hold the caller.
        if self._recorder is not None:
            await self._recorder.close()
        self._log_end(reason)

    async def _release_caller(self, reason: EndReason) -> None:
        if self.released:
            return
        await self._insist("stop the ringing", self.legs.stop_ringing)
        # A call that never spoke goes on in the dialplan at once: there is nothing to explain.
        audible = reason.failure and self._talking and reason is not EndReason.SHUTDOWN
        if audible and self._caller_present and self._settings.failure_media != "none":
            await self._play_failure()
        if reason.failure or self._settings.after_call == "continue":
            await self._insist("set the status", lambda: self._set_status(reason))
            self._released = True
            await self._insist(
                "go on in the dialplan", lambda: self._ari.continue_in_dialplan(self.channel.id)
            )
        else:
            self._released = True
            await self._insist("hang up", lambda: self._ari.hang_up(self.channel.id))

    async def _set_status(self, reason: EndReason) -> None:
        await self._ari.set_variable(self.channel.id, STATUS_VARIABLE, reason.value)

    async def _play_failure(self) -> None:
        playback_id = f"{self.bridge_id}-failure"
        try:
            await self._ari.play(self.channel.id, self._settings.failure_media, playback_id)
        except ArivoxError as error:
            log.warning("could not play", setting="FAILURE_MEDIA", error=str(error))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAILURE_MEDIA_S):
                    await self._gone.wait()
        # After a failure too: it may play, and the caller cannot be sent on before it has stopped.
        await self._insist("stop the sound", lambda: self._ari.stop_playback(playback_id))

    async def _insist(self, what: str, request: Callable[[], Awaitable[None]]) -> None:
        """Make a request until Asterisk has heard it: without it the caller would sit in silence."""
        if not await insist(what, request, lambda: self._caller_present):
            self._untidy = True

    async def _try(self, what: str, request: Awaitable[None]) -> None:
        if not await attempt(what, request):
            self._untidy = True

    def _log_end(self, reason: EndReason) -> None:
        counters: dict[str, Any] = {}
        if self._link is not None:
            counters |= self._link.counters()
        if self._exchange is not None:
            playout, session = self._exchange.playout, self._exchange.session.counters
            counters |= {
                "agent_heard_s": round(playout.heard_total_ms / 1000, 1),
                "agent_overflow_bytes": playout.overflow_bytes,
                "agent_underruns": playout.underruns,
                "ai_messages_in": session.messages_in,
                "ai_messages_out": session.messages_out,
                "ai_audio_s": round(session.audio_in_ms / 1000, 1),
                "ai_late_audio_ms": round(session.late_audio_ms + playout.audio.ms(playout.late_bytes)),
                "uplink_frames": session.audio_out_frames,
                "uplink_dropped": session.uplink_dropped_frames,
                "ai_reconnects": session.reconnects,
                "ai_left_out": session.left_out,
                "ai_skipped_silence_ms": round(session.skipped_silence_ms),
                **{f"usage_{name}": value for name, value in session.usage.items()},
            }
        seconds = round(time.monotonic() - self._started, 1)
        self.timeline.add("call.counters", seconds=seconds, **counters)
        log.info("call ended", reason=reason.value, seconds=seconds, **counters)


class Discreet:
    """A tap for the recorder that hears nothing while the caller keys in something secret."""

    def __init__(self, recorder: Recorder, call: Call) -> None:
        self._recorder = recorder
        self._call = call

    def caller(self, audio: bytes) -> None:
        """Take the caller's sound."""
        self._recorder.caller(self._call.silent(audio) if self._call.private else audio)

    def agent(self, audio: bytes) -> None:
        """Take the agent's sound."""
        self._recorder.agent(audio)


class _Ended(Exception):  # noqa: N818 - not an error: it takes the task group down
    """The call is over."""
