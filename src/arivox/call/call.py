"""The life of one call: answer, media, AI and conversation, and the single way out.

A call is one task group. Whatever ends it calls ``end``; then the same closing runs once: stop the AI, free
the media, take down what stands in Asterisk, and hang the caller up or give them back to the dialplan.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from arivox.asterisk.codecs import complain, in_bridge
from arivox.asterisk.hold import on_hold
from arivox.asterisk.messages import CallerId, Channel
from arivox.audio.format import AudioFormat
from arivox.call.actions import Actions
from arivox.call.caller import Caller
from arivox.call.context import CallContext
from arivox.call.counters import counted
from arivox.call.ear import Ear
from arivox.call.ending import EndReason
from arivox.call.exchange import Exchange
from arivox.call.legs import Legs
from arivox.call.line import Line
from arivox.call.minutes import Minutes
from arivox.call.release import Release
from arivox.call.setup import Setup
from arivox.call.timeline import Timeline
from arivox.conversation.conversation import Conversation
from arivox.conversation.flow import HIDDEN
from arivox.conversation.prompts import Prompts
from arivox.errors import (
    ArivoxError,
    AsteriskError,
    ChannelGoneError,
    PortsExhaustedError,
    SettingsError,
)
from arivox.logs import mask
from arivox.media.recorder import Recorder
from arivox.media.rtp.link import RtpLink
from arivox.providers.registry import Provider
from arivox.tools import CallInfo

log = structlog.get_logger()

_CHECK_EVERY_S: Final = 0.2
_EVENT_S: Final = 0.3  # an event may come so much later than the answer to a request


class Call:
    """One call. ``run`` is its whole life; ``end`` may be called at any moment, from any callback."""

    def __init__(
        self, channel: Channel, args: Sequence[str], context: CallContext, replaced: Channel | None = None
    ) -> None:
        """``replaced``: in whose place the caller is, where the dialplan did not send them here."""
        self.id = secrets.token_hex(4)
        self.caller = Caller(channel)
        if replaced is not None:
            self.caller.place = replaced.dialplan.following
        self.legs = Legs(context.ari, self.caller, self.id, context.expect_channel)
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
        self._talking = False  # the media path was up
        self._link: RtpLink | None = None
        self._exchange: Exchange | None = None
        self._provider = "-"
        self._recorder: Recorder | None = None
        self.line = Line(self.caller, self.timeline, self._who)
        self._looking: asyncio.Task[None] | None = None  # at the bridge
        self._heard = False  # the caller hears what is sent to them
        self._connected = False  # caller and colleague hear each other: the rest is theirs
        self._setup = Setup(self.id, self.caller, args, context, self.legs, self.timeline, replaced)
        self._release = Release(self._settings, self._ari, self.caller, self.legs)
        self._minutes = Minutes(self.id, channel, self._settings, context.memory, self.timeline)
        self._actions = Actions(
            context.settings,
            context.ari,
            self.caller,
            self.legs,
            self.timeline,
            self.end,
            self._let_go,
            self._minutes.noted,
        )

    def __repr__(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        heard = self._exchange.playout.heard_total_ms / 1000 if self._exchange is not None else 0.0
        state = self.conversation.state if self.conversation is not None else "-"
        return (
            f"<Call {self.id} {mask(self.caller.number)} {state} "
            f"{minutes:02d}:{seconds:02d} rtp {self._provider} heard={heard:.1f}s>"
        )

    # --- from outside ---

    async def run(self) -> EndReason:
        """Live the whole life of the call. Returns why it ended; never raises an ArivoxError."""
        with structlog.contextvars.bound_contextvars(call=self.id):
            number, exten = self.caller.number, self.channel.dialplan.exten
            self.timeline.add("call.started", caller=number, exten=exten)
            log.info(
                "call",
                caller=number if self._settings.log_full_numbers else mask(number),
                exten=exten,
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
        self.caller.leave()
        # Who was let go leaves too, and that may be heard of first.
        self.end(EndReason.TRANSFERRED if self.caller.let_go else EndReason.CALLER_HANGUP)

    def caller_replaced(self, channel: Channel) -> None:
        """Hear that another channel stands in the place of the caller's: their telephone put it there."""
        self.line.succeeded_by(channel)

    def left_bridge(self, channel_id: str) -> None:
        """Hear that a channel left the call's bridge, though it is still in Asterisk."""
        if channel_id != self.media_id or self.legs.media_away or self._ended.done():
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_at_bridge())

    async def look_again(self) -> None:
        """Ask Asterisk for what lost events would have told: a hold or its end, and who answered."""
        channel_id = self.caller.id
        try:
            channel = await self._ari.channel(channel_id)
            held = await on_hold(self._ari, channel_id)
        except ArivoxError as error:
            log.debug("nothing is known of the caller's channel", call=self.id, error=str(error))
            return
        if self.released or self.caller.id != channel_id:
            return
        self.line.state(channel)
        if held:
            self.line.hold()
        else:
            self.line.unhold()
        if self._talking:
            self.left_bridge(self.media_id)  # it is looked whether it did

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

    # --- what is so ---

    @property
    def channel(self) -> Channel:
        """Return the caller's channel."""
        return self.caller.channel

    @property
    def leg_ids(self) -> tuple[str, ...]:
        """Return the channels of ours that Asterisk must have."""
        media = (self.media_id,) if self._talking else ()
        return (*media, self.legs.out_id) if self.legs.out_made else media

    @property
    def released(self) -> bool:
        """Return whether the caller's channel is no longer ours."""
        return self.caller.released

    @property
    def untidy(self) -> bool:
        """Return whether something of it may be left in Asterisk."""
        return self._release.untidy or self.legs.untidy

    # --- set-up ---

    async def _set_up(self, group: asyncio.TaskGroup) -> None:
        setup = self._setup
        try:
            audio, (provider, prompts) = await asyncio.gather(setup.audio(), setup.provider())
            self._provider = provider.name
            exchange = self._exchange = await self._converse(audio, provider, prompts)
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
            link.excused = lambda: self.line.absent
            link.on_broken = lambda: self.end(EndReason.INTERNAL_ERROR)
            connecting = group.create_task(self._connect(exchange))
            if self._settings.answer == "when_ready":
                await setup.ring()
                await connecting
            await setup.media(link, audio)
            self._listen(link, exchange)
            self._talking = self._heard = True
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

    async def _converse(self, audio: AudioFormat, provider: Provider, prompts: Prompts) -> Exchange:
        """Make the conversation, and what carries it over to the AI."""
        conversation = self.conversation = Conversation(
            prompts,
            provider.instruction(self._settings),
            variables=await self._setup.variables(prompts),
            tools=self._context.toolbox.with_endpoints(prompts.endpoints),
            destinations={name: to.what for name, to in self._settings.destinations.items()},
        )
        exchange = Exchange(
            self._settings,
            audio,
            conversation,
            self.timeline,
            await self._minutes.begin(provider, conversation),
            self._actions,
            self._info,
            provider.new_session,
            self.end,
        )
        self._actions.voice, self._actions.conversation = exchange, conversation
        return exchange

    async def _connect(self, exchange: Exchange) -> None:
        await exchange.connect()
        if not self._ended.done():
            self.line.opened(exchange)

    async def _who(self) -> CallerId:
        """Return whom the media channel talks to."""
        return (await self._ari.channel(self.media_id)).connected

    async def _caller_has_left(self) -> bool:
        try:
            await self._ari.channel(self.caller.id)
        except ChannelGoneError:
            return True
        except AsteriskError:
            return False  # Asterisk is in trouble: that is the reason to give
        return False

    def _info(self) -> CallInfo:
        conversation = self.conversation
        assert conversation is not None
        return CallInfo(
            self.id,
            self.caller.id,
            self.caller.number,
            self.channel.dialplan.exten,
            conversation.state,
            conversation.known,
            conversation.secrets,
        )

    # --- the audio path ---

    def _listen(self, link: RtpLink, exchange: Exchange) -> None:
        """Let the AI hear the caller, and the recorder both."""
        conversation = self.conversation
        assert conversation is not None

        def hear(data: bytes) -> None:
            if not self._ended.done():
                exchange.hear(data)

        def deaf() -> bool:
            # Music and ringing tones are no caller, and would be answered.
            return self._actions.deaf or self.line.absent

        ear = Ear(self._settings, link.audio, hear, lambda: conversation.private, deaf)
        recorder = self._record(link.audio)
        link.start(ear.take, ear.tap(recorder) if recorder is not None else None)

    def _record(self, audio: AudioFormat) -> Recorder | None:
        if not self._settings.enable_audio_recording:
            return None
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{self.id}.wav"
        self.recording = self._settings.recordings_dir / name
        self._minutes.recorded(self.recording)
        self._recorder = Recorder(self.recording, audio, self._context.executor)
        self._recorder.start()
        return self._recorder

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            if self._exchange is not None:
                self._exchange.check(time.monotonic())

    async def _look_at_bridge(self) -> None:
        """End the call if the media channel is not in the bridge: nobody hears the AI, and it is paid."""
        with structlog.contextvars.bound_contextvars(call=self.id):
            try:
                if await in_bridge(self._ari, self.bridge_id, self.media_id):
                    return
            except ArivoxError as error:
                log.warning("it is not known who is in the bridge", error=str(error))
            if self.legs.media_away or self._ended.done():
                return
            await complain(self._ari, self.caller.id, "the caller")
            self._heard = False
            self.end(EndReason.ASTERISK_FAILED)

    # --- the way out ---

    def _let_go(self, gone: bool) -> None:
        """Hear that the caller is no longer ours, but a colleague's or the dialplan's; or is ours again."""
        self.caller.let_go = gone
        if gone and self.legs.out_id and self.caller.present:
            self._connected = True
            self._context.connect(self.bridge_id, self.caller.id, self.legs.out_id)

    async def _close(self, reason: EndReason) -> None:
        self.timeline.add("call.ended", reason=reason.value)
        closing: asyncio.Future[None] | None = None
        self.line.close()
        if self._looking is not None:
            self._looking.cancel()
        try:
            if self._exchange is not None:
                self._exchange.stop()
                # Beside the rest: an AI that takes its time to count what was used must not hold the caller.
                closing = asyncio.ensure_future(self._exchange.close())
            await self._setup.settled()
            if self._exchange is not None:
                await self._exchange.stop_tools()
            await self._release.take_down(connected=self._connected)
            if self._link is not None:
                await self._link.close()
        finally:
            # Whatever went wrong above, nobody is left waiting in silence.
            try:
                await self._release.let_go(reason, explain=self._talking and self._heard)
            finally:
                if closing is not None:
                    await closing
        self._minutes.end(reason)
        # Last, for a slow disk must not hold the caller.
        if self._recorder is not None:
            await self._recorder.close()
        self._log_end(reason)

    def _log_end(self, reason: EndReason) -> None:
        counters = counted(self._link, self._exchange)
        seconds = round(time.monotonic() - self._started, 1)
        self.timeline.add("call.counters", seconds=seconds, **counters)
        log.info("call ended", reason=reason.value, seconds=seconds, **counters)


class _Ended(Exception):  # noqa: N818 - not an error: it takes the task group down
    """The call is over."""
