"""A caller who hangs up, and an Asterisk that is slow or refuses, at every step of the set-up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from hearing import hear_fallback
from rig import BOTH_LOOPS, Rig, SteadyEcho, until

from arivox.asterisk.messages import Channel
from arivox.call.ending import EndReason
from arivox.emulator.script import Script
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk

VERBS = ("variable", "answer", "external_media", "create_bridge", "add_to_bridge")
Verb = Callable[..., Awaitable[Any]]


def wrap(rig: Rig, name: str, around: Callable[[Verb, tuple[Any, ...]], Awaitable[Any]]) -> None:
    """Let ``around`` make the first request of this name; it is given the real verb and its arguments."""
    real = getattr(rig.service.ari, name)
    used = False

    async def verb(*arguments: Any) -> Any:
        nonlocal used
        if used:
            return await real(*arguments)
        used = True
        return await around(real, arguments)

    setattr(rig.service.ari, name, verb)


async def give_up(phone: SipPhone) -> None:
    """Hang up, whether the call is up or not, and wait until Asterisk has confirmed."""
    await phone.hangup()
    await phone.wait_state("down")


async def until_gone(rig: Rig, channel_id: str) -> None:
    """Wait until Asterisk knows the channel no longer."""
    try:
        while True:
            await rig.service.ari.channel(channel_id)
    except ChannelGoneError:
        return


async def call_in_background(rig: Rig) -> tuple[SipPhone, asyncio.Task[int]]:
    phone = await rig.open_phone()
    return phone, asyncio.create_task(phone.call("700"))


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("verb", VERBS)
async def test_hang_up_around_a_request(
    asterisk: AsteriskInstance, verb: str, moment: Literal["before", "during", "after"]
) -> None:
    async with Rig(asterisk, SteadyEcho) as rig:
        phone, calling = await call_in_background(rig)
        # In place before the caller's channel enters: the service reads its events in this same loop.
        giving_up: list[asyncio.Task[None]] = []

        async def around(real: Verb, arguments: tuple[Any, ...]) -> Any:
            if moment == "after":
                result = await real(*arguments)
            # A task of its own: the service may cancel this one, which is the point.
            giving_up.append(asyncio.create_task(give_up(phone)))
            if moment != "during":
                await asyncio.shield(giving_up[0])
            return result if moment == "after" else await real(*arguments)

        wrap(rig, verb, around)
        assert await calling in (200, 487)
        await until(lambda: bool(giving_up), "the request")
        await giving_up[0]
        assert await rig.ended() == "caller_hangup"


@pytest.mark.parametrize(
    "verb",
    [
        "answer",
        "external_media",
        "create_bridge",
        "add_to_bridge",
    ],
)
async def test_request_fails_before_the_hang_up_is_known(asterisk: AsteriskInstance, verb: str) -> None:
    """The answer to a request may overtake the event: no failure of Asterisk is reported."""
    async with Rig(asterisk, SteadyEcho) as rig:
        phone, calling = await call_in_background(rig)
        held = asyncio.Event()

        async def around(real: Verb, arguments: tuple[Any, ...]) -> Any:
            (call,) = rig.calls
            gone = call.caller_gone
            call.caller_gone = held.set  # type: ignore[method-assign]
            await asyncio.shield(asyncio.create_task(give_up(phone)))
            await until_gone(rig, call.channel.id)
            await held.wait()
            asyncio.get_running_loop().call_later(0.2, gone)
            return await real(*arguments)

        wrap(rig, verb, around)
        await calling
        assert await rig.ended() == "caller_hangup"


async def test_hang_up_just_before_the_requests_begin(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho) as rig:
        board = rig.service.switchboard
        expect = board.expect_channel

        def expect_and_end(channel_id: str) -> asyncio.Future[Channel]:
            rig.calls[0].end(EndReason.AGENT_HANGUP)
            return expect(channel_id)

        board.expect_channel = expect_and_end  # type: ignore[method-assign]
        phone = await rig.open_phone()
        await phone.call("700")  # answered or not: what was begun is undone
        assert await rig.ended() == "completed"


@pytest.mark.parametrize("answer", ["at_once", "when_ready"])
async def test_hang_up_while_the_ai_connects(asterisk: AsteriskInstance, answer: str) -> None:
    async with Rig(asterisk, Script, emulator={"handshake_delay": 4.0}, answer=answer) as rig:
        phone, calling = await call_in_background(rig)
        await until(lambda: bool(rig.calls), "the call")
        if answer == "at_once":
            await phone.wait_state("up")
            await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        await give_up(phone)
        assert await calling == (200 if answer == "at_once" else 487)
        assert await rig.ended() == "caller_hangup"


@BOTH_LOOPS
@pytest.mark.parametrize("answer", ["at_once", "when_ready"])
async def test_hang_up_before_session_created(asterisk: AsteriskInstance, answer: str) -> None:
    async with Rig(asterisk, lambda: Script(greets=False), answer=answer) as rig:
        phone, calling = await call_in_background(rig)
        connection = await rig.emulator.wait_session()
        if answer == "at_once":
            await phone.wait_state("up")
        await give_up(phone)
        await calling
        assert await rig.ended() == "caller_hangup"
        await asyncio.wait_for(connection.ended.wait(), 2)
        assert connection.record.received() == []


async def test_hang_up_as_the_greeting_begins(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say("A greeting of which nothing is wanted.", wait=False)
        await phone.wait_heard()
        await give_up(phone)
        assert await rig.ended() == "caller_hangup"
        await asyncio.wait_for(stage.connection.ended.wait(), 2)


async def test_callers_who_hang_up_at_any_moment(asterisk: AsteriskInstance) -> None:
    """The moments between the requests: 40 callers, each a millisecond later than the one before."""
    async with Rig(asterisk, SteadyEcho, port_count=200) as rig:

        async def brief_call(index: int) -> None:
            phone = await rig.open_phone()
            calling = asyncio.create_task(phone.call("700"))
            await asyncio.sleep(index / 1000)
            await give_up(phone)
            assert await calling in (200, 487)

        for start in range(0, 40, 8):
            await asyncio.gather(*(brief_call(start + index) for index in range(8)))
        for index, timeline in enumerate(rig.timelines):
            assert await rig.ended(index) == "caller_hangup", timeline.as_dict()


@pytest.mark.parametrize("verb", VERBS)
async def test_asterisk_refuses_a_request(asterisk: AsteriskInstance, verb: str) -> None:
    """HTTP 500 (Asterisk is out of something): the caller is not left in silence."""

    async def refuse(_: Verb, __: tuple[Any, ...]) -> Any:
        raise AsteriskError("Allocation failed", status=500, request=f"POST {verb}")

    async with Rig(
        asterisk, SteadyEcho, expect_log=["the call could not be set up"], failure_media="none"
    ) as rig:
        wrap(rig, verb, refuse)
        phone = await rig.dial()
        await hear_fallback(phone)
        assert await rig.ended() == "asterisk_failed"
        assert await rig.status_of() == "asterisk_failed"


async def test_media_channel_is_refused_as_gone(asterisk: AsteriskInstance) -> None:
    """A 4xx of a request about our own things is no hang-up of the caller."""

    async def refuse(_: Verb, __: tuple[Any, ...]) -> Any:
        raise ChannelGoneError("Channel not in Stasis application", status=422, request="POST addChannel")

    async with Rig(asterisk, SteadyEcho, expect_log=["the call could not be set up"]) as rig:
        wrap(rig, "add_to_bridge", refuse)
        phone = await rig.dial()
        await hear_fallback(phone)
        assert await rig.ended() == "asterisk_failed"


@pytest.mark.parametrize("verb", VERBS)
async def test_asterisk_is_slow(asterisk: AsteriskInstance, verb: str) -> None:
    async def slow(real: Verb, arguments: tuple[Any, ...]) -> Any:
        await asyncio.sleep(0.4)
        return await real(*arguments)

    async with Rig(asterisk, Script) as rig:
        wrap(rig, verb, slow)
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say("Good morning.")
        await phone.wait_heard()
        await give_up(phone)
        assert await rig.ended() == "caller_hangup"
