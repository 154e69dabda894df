"""Checks of an installation: each says what it found and, when it fails, what to do."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from arivox.asterisk.client import AriClient
from arivox.asterisk.codecs import SPOKEN, mend
from arivox.asterisk.messages import AnyEvent, OtherEvent, StasisStart
from arivox.asterisk.translation import untranslatable
from arivox.audio.format import ULAW
from arivox.conversation import prompts
from arivox.conversation.memory.store import make as make_store
from arivox.conversation.tools.box import ToolBox
from arivox.conversation.tools.calendar import Calendar
from arivox.conversation.tools.names import TRANSFER
from arivox.errors import (
    ArivoxError,
    AsteriskError,
    ChannelGoneError,
    ProviderError,
    SettingsError,
    StoreError,
)
from arivox.media.clock import Pacer
from arivox.media.playout import Playout
from arivox.media.rtp.link import RtpLink
from arivox.media.rtp.ports import PortRange
from arivox.providers import registry
from arivox.providers.base import Brief, Fault, ProviderEvent
from arivox.providers.registry import Provider
from arivox.service import rtp_addresses
from arivox.settings.settings import Settings

_OLDEST: Final = (20, 0)
_MODULES: Final = {
    "res_stasis.so": "the Stasis application core",
    "app_stasis.so": "Stasis() in the dialplan",
    "res_ari_channels.so": "ARI for channels",
    "res_ari_bridges.so": "ARI for bridges",
    "res_ari_applications.so": "ARI for the application, to find callers after a restart",
    "res_ari_playbacks.so": "ARI for sounds",
    "res_stasis_playback.so": "FAILURE_MEDIA and the ringing of a transfer",
    "res_stasis_answer.so": "answering by ARI",
    "chan_rtp.so": "externalMedia over RTP",
    "bridge_simple.so": "two-party bridges",
}
_WAIT_S: Final = 2.0
_LISTED: Final = 8
# What endpoints allow besides sound.
_NOT_SOUND: Final = frozenset(
    {
        "h261",
        "h263",
        "h263p",
        "h264",
        "h265",
        "mpeg4",
        "vp8",
        "vp9",
        "av1",
        "jpeg",
        "png",
        "red",
        "t140",
        "t38",
    }
)
_REFUSAL_S: Final = 1.0
# 0 dBm0 digital milliwatt, 1 kHz (ITU-T G.711, table 5): eight bytes of mu-law that repeat.
_MILLIWATT: Final = bytes([0x1E, 0x0B, 0x0B, 0x1E, 0x9E, 0x8B, 0x8B, 0x9E])


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    text: str
    hint: str = ""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield a finding for each check, in the order in which problems should be solved."""
    yield _prompts(settings)
    yield _ports(settings)
    reachable = False
    async with AriClient(
        settings.ari_url,
        settings.ari_username,
        settings.ari_password,
        settings.ari_app_name,
        timeout_s=settings.ari_request_timeout_s,
    ) as ari:
        async for finding in _asterisk(ari, settings):
            yield finding
            reachable = finding.state != "failed"
            if not reachable:
                break
    if reachable:
        async for finding in _codecs(settings):
            yield finding
        async for finding in _rtp(settings):
            yield finding
    else:
        yield Finding("RTP", "skipped", "not checked: ARI does not answer")
    yield await _provider(settings)
    yield await _store(settings)


def _prompts(settings: Settings) -> Finding:
    try:
        sections = registry.find(settings.ai_service_provider).sections
        box = ToolBox(settings.tools_file, Calendar(settings.calendar_file))
        found = prompts.load(settings.prompts_file, sections, box.facts)
    except SettingsError as error:
        hint = "Correct the file (arivox flow check shows every fault), or copy a fresh one: arivox init."
        return Finding("prompts", "failed", str(error), hint)
    used = {name for state in found.states.values() for name in state.tools}
    used |= {act.tool for state in found.states.values() for act in (*state.on_enter, *state.on_leave)}
    told = f"{len(found.states)} states, beginning with {found.way[0]}"
    told += f"; tools: {', '.join(sorted(used))}" if used else ""
    if TRANSFER in used and not settings.destinations:
        hint = "Name the destinations in TRANSFER_TO."
        return Finding("prompts", "warning", f"{told}; calls can be transferred nowhere", hint)
    return Finding("prompts", "ok", told)


def _ports(settings: Settings) -> Finding:
    first, last = settings.rtp_ports
    try:
        bind, advertised = rtp_addresses(settings)
        ports = PortRange(bind, first, last)
        sock = ports.bind()
        sock.close()
    except ArivoxError as error:
        return Finding("RTP ports", "failed", str(error))
    capacity = (last - first) // 2 + 1
    text = f"{bind}:{first}-{last}, as {advertised} for Asterisk; {capacity} calls"
    if capacity < settings.max_calls:
        return Finding(
            "RTP ports", "warning", text, f"MAX_CALLS is {settings.max_calls}: widen RTP_SERVER_PORT_LAST."
        )
    return Finding("RTP ports", "ok", text)


async def _asterisk(ari: AriClient, settings: Settings) -> AsyncIterator[Finding]:
    try:
        settings.require_ari()
        await ari.ping()
        version = await ari.version()
    except SettingsError as error:
        yield Finding("ARI", "failed", str(error))
        return
    except AsteriskError as error:
        if error.status == 401:
            hint = "ARI_USERNAME and ARI_PASSWORD must stand in ari.conf; reload with: core reload."
        elif error.status is not None:
            hint = "Is ARI enabled (ari.conf, [general] enabled = yes) and res_ari loaded?"
        else:
            hint = "Is Asterisk running, http.conf enabled, and ARI_URL right?"
        yield Finding("ARI", "failed", str(error), hint)
        return
    except ArivoxError as error:
        hint = "What answers at ARI_URL does not look like Asterisk."
        yield Finding("ARI", "failed", str(error), hint)
        return
    yield Finding("ARI", "ok", f"Asterisk {version} answers at {ari.url}")
    if _version(version) < _OLDEST:
        yield Finding("version", "warning", f"Asterisk {version}", "Asterisk 20 or newer is supported.")
    missing = [f"{name} ({purpose})" for name, purpose in _MODULES.items() if not await ari.has_module(name)]
    if missing:
        yield Finding("modules", "failed", f"not loaded: {', '.join(missing)}", "Load them in modules.conf.")
    else:
        yield Finding("modules", "ok", f"all {len(_MODULES)} needed are loaded")


def _version(text: str) -> tuple[int, ...]:
    parts = text.split("-")[0].removeprefix("certified/").split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit()) or _OLDEST


async def _codecs(settings: Settings) -> AsyncIterator[Finding]:
    """Look for codecs that endpoints allow and Asterisk cannot translate: such callers hear nothing."""
    try:
        async with _own(settings) as ari:
            endpoints = await _endpoints(ari)
            spoken = {codec for allowed in endpoints.values() for codec in allowed} - _NOT_SOUND
            deaf = await untranslatable(ari, sorted(spoken - SPOKEN))
    except ArivoxError as error:
        yield Finding("codecs", "failed", str(error))
        return
    if not endpoints:
        hint = "Compare allow= of the endpoints with core show translation."
        yield Finding("codecs", "skipped", "ARI tells nothing of the endpoints' codecs", hint)
        return
    if not deaf:
        listed = ", ".join(sorted(spoken))
        yield Finding("codecs", "ok", f"what the endpoints allow can be translated: {listed}")
        return
    # Asterisk takes the first codec of the endpoint's own list that the telephone offers.
    first = {name: deaf.intersection(allowed) for name, allowed in endpoints.items() if deaf & {*allowed[:1]}}
    later = {name: deaf.intersection(allowed) for name, allowed in endpoints.items() if name not in first}
    for finding in (*_deaf("failed", first), *_deaf("warning", later)):
        yield finding


async def _endpoints(ari: AriClient) -> dict[str, tuple[str, ...]]:
    """Return what each PJSIP endpoint allows; one that cannot be read is left out."""
    found = {}
    with suppress(ChannelGoneError):  # no PJSIP, or no res_ari_endpoints
        for name in sorted(await ari.endpoints()):
            with suppress(ChannelGoneError):
                found[name] = await ari.allowed_codecs(name)
    return found


def _deaf(state: Literal["failed", "warning"], found: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    codecs = sorted({codec for deaf in found.values() for codec in deaf})
    if codecs:
        names = _some(name for name, deaf in found.items() if deaf)
        told = f"callers of {names} who speak one of these would hear nothing: {_some(codecs)}"
        hint = f"Rather {mend(codecs[0] if len(codecs) == 1 else 'them')}."
        yield Finding("codecs", state, f"{told}; Asterisk cannot translate them", hint)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


def _own(settings: Settings) -> AriClient:
    """Return a client with an application of our own: a running service keeps its calls."""
    return AriClient(
        settings.ari_url,
        settings.ari_username,
        settings.ari_password,
        f"arivox-doctor-{secrets.token_hex(3)}",
        timeout_s=settings.ari_request_timeout_s,
    )


async def _rtp(settings: Settings) -> AsyncIterator[Finding]:
    """Let Asterisk send us a tone, and send it one back."""
    pacer = Pacer()
    bind, advertised = rtp_addresses(settings)
    ari = _own(settings)
    try:
        async with ari:
            ports = PortRange(bind, *settings.rtp_ports)
            link = RtpLink.open(ULAW, Playout(ULAW), pacer, ports, "doctor")
            loop = _Loop(ari, advertised, named=settings.rtp_source_check == "named")
            try:
                yield await loop.incoming(link)
                if link.counters()["rtp_in"]:
                    yield await loop.outgoing(link)
            finally:
                await link.close()
                await loop.close()
    except ArivoxError as error:
        yield Finding("RTP", "failed", str(error))
    finally:
        pacer.close()


class _Loop:
    """A media channel without a caller."""

    def __init__(self, ari: AriClient, host: str, *, named: bool) -> None:
        self._ari = ari
        self._host = host
        self._named = named
        self._id = f"arivox-doctor-{secrets.token_hex(4)}"
        self._entered = asyncio.Event()
        self._talking = asyncio.Event()
        self._up = asyncio.Event()
        self._listening = asyncio.ensure_future(ari.listen(self._event, self._up.set))

    async def incoming(self, link: RtpLink) -> Finding:
        """Have Asterisk play a tone into the channel and see it arrive."""
        waiting = asyncio.ensure_future(self._up.wait())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({self._listening, waiting}, timeout=_WAIT_S, return_when=first)
        waiting.cancel()
        if self._listening.done():
            self._listening.result()
        if not self._up.is_set():
            return Finding(
                "RTP in",
                "failed",
                "ARI's events WebSocket does not open",
                "Does a proxy stand before Asterisk? Is res_ari_events loaded?",
            )
        external = await self._ari.external_media(self._id, self._host, link.port, "ulaw")
        link.expect(external.rtp_address if self._named else None)
        link.start(lambda _: None)
        await self._wait(self._entered)
        tone = f"{self._id}-tone"
        await self._ari.play(self._id, "tone:dial", tone)
        deadline = time.monotonic() + _WAIT_S
        while not link.counters()["rtp_in"] and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await self._ari.stop_playback(tone)  # it would hold the channel's other commands up
        counters = link.counters()
        if counters["rtp_in"]:
            return Finding("RTP in", "ok", f"Asterisk's audio reaches {self._host}:{link.port}")
        if counters["rtp_foreign"]:
            return Finding(
                "RTP in",
                "failed",
                f"{counters['rtp_foreign']} packets came from an address Asterisk did not name",
                "Asterisk is behind NAT: set RTP_SOURCE_CHECK=learn.",
            )
        return Finding(
            "RTP in",
            "failed",
            f"nothing arrives at {self._host}:{link.port}",
            "Set RTP_SERVER_IP_FOR_ASTERISK to an address Asterisk can reach, and open the UDP ports.",
        )

    async def outgoing(self, link: RtpLink) -> Finding:
        """Send a tone and have Asterisk notice it."""
        try:
            await self._ari.set_variable(self._id, "TALK_DETECT(set)", "200,64")
        except AsteriskError as error:
            return Finding(
                "RTP out", "skipped", f"Asterisk cannot notice our audio: {error}", "Load func_talkdetect."
            )
        link.playout.push("tone", _MILLIWATT * 1000)
        link.playout.finish("tone")
        link.wake()
        if await self._wait(self._talking):
            return Finding("RTP out", "ok", "our audio reaches Asterisk")
        return Finding(
            "RTP out", "failed", "Asterisk does not hear us", "Open its RTP ports (rtp.conf) to this machine."
        )

    async def close(self) -> None:
        """Take the channel down."""
        with suppress(AsteriskError):
            await self._ari.hang_up(self._id)
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _wait(self, event: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(_WAIT_S):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def _event(self, event: AnyEvent) -> None:
        if isinstance(event, StasisStart):
            self._entered.set()
        elif isinstance(event, OtherEvent) and event.type == "ChannelTalkingStarted":
            self._talking.set()


async def _provider(settings: Settings) -> Finding:
    name = settings.ai_service_provider
    provider = registry.find(name)
    try:
        provider.check(settings)
        faults: list[ProviderError] = []
        fault = asyncio.Event()

        def on_event(event: ProviderEvent) -> None:
            if isinstance(event, Fault):
                faults.append(event.error)
                fault.set()

        session = provider.new_session(settings, ULAW, on_event)
        begun = time.monotonic()
        try:
            await session.connect(Brief("Say nothing."))
            elapsed = round((time.monotonic() - begun) * 1000)
            # A setting that the server refuses, a voice say, comes back as an error after the session began.
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFUSAL_S):
                    await fault.wait()
        finally:
            await session.close()
    except SettingsError as error:
        return Finding(name, "failed", str(error))
    except ProviderError as error:
        return Finding(name, "failed", str(error), _provider_hint(provider, error))
    if faults:
        hint = f"Correct the {provider.prefix} or VAD_ setting that it names."
        return Finding(name, "failed", str(faults[0]), hint)
    return Finding(name, "ok", f"{provider.model(settings)} opened a session in {elapsed} ms")


def _provider_hint(provider: Provider, error: ProviderError) -> str:
    if "api_key" in error.code or error.code == "401":
        return f"Set {provider.key_setting} to a valid key of a project that may use {provider.title}."
    if "model" in error.code or error.code == "404":
        return f"Set {provider.model_setting} to a model that the project may use."
    if error.code in ("credentials", "permission_denied", "403"):
        return "May the account use the service? See docs/providers."
    if error.code == "invalid_argument":
        return f"A {provider.prefix} setting does not suit the model."
    if error.code in ("insufficient_quota", "429"):
        return "The project's quota is used up: see its page of limits and billing."
    return f"Can this machine reach {provider.url_setting} (firewall, proxy)?"


async def _store(settings: Settings) -> Finding:
    try:
        store = make_store(settings)
    except SettingsError as error:
        return Finding("store", "failed", f"{error.setting} {error.problem}", error.hint)
    if store is None:
        return Finding("store", "skipped", "MEMORY_URL is none: no conversation is kept")
    try:
        await asyncio.wait_for(store.open(), _WAIT_S)
    except (StoreError, TimeoutError) as error:
        why = str(error) or f"{store.where}: no answer within {_WAIT_S:g} s"
        return Finding("store", "failed", why, "Check MEMORY_URL, or REDIS_HOST and the settings beside it.")
    finally:
        with suppress(StoreError):
            await store.close()
    return Finding("store", "ok", f"{store.where} answers")
