"""The user agent against another one over a wire that tests can cut, in zero wall time."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.errors import ProtocolError
from arivox.testing import sip, useragent
from arivox.testing.sdp import SessionDescription
from arivox.testing.sip import Request, Response
from arivox.testing.useragent import Event, UserAgent

ALICE, BOB = ("127.0.0.1", 1001), ("127.0.0.1", 1002)
OFFER = SessionDescription("127.0.0.1", 4000, ("ulaw",)).encode()


class Wire:
    """Alice and Bob, with a clock; ``lose`` says of the n-th datagram whether it is lost."""

    def __init__(
        self,
        lose: Callable[[int], bool] = lambda _: False,
        bob_rings: bool = False,
        spoil: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        self.now = 100.0
        self.alice = UserAgent(ALICE, BOB, "alice", random=random.Random(1))
        self.bob = UserAgent(BOB, ALICE, "bob", random=random.Random(2))
        self.lose = lose
        self.spoil = spoil
        self.refused: list[ProtocolError] = []
        self.bob_rings = bob_rings
        self.sent: list[str] = []
        self.events: dict[str, list[Event]] = {"alice": [], "bob": []}

    def deliver(self) -> None:
        """Carry datagrams until nobody has any."""
        while self.alice.outbox or self.bob.outbox:
            for sender, receiver, name in ((self.alice, self.bob, "bob"), (self.bob, self.alice, "alice")):
                datagrams, sender.outbox = sender.outbox, []
                for data, address in datagrams:
                    assert address == receiver.local
                    lost = self.lose(len(self.sent))
                    self.sent.append(data.split(b"\r\n")[0].decode() + (" (lost)" if lost else ""))
                    if not lost:
                        self.take(name, self.receive(receiver, self.spoil(data), sender.local))

    def receive(self, receiver: UserAgent, data: bytes, source: useragent.Address) -> list[Event]:
        try:
            return receiver.receive(data, source, self.now)
        except ProtocolError as error:
            self.refused.append(error)
            return []

    def take(self, name: str, events: list[Event]) -> None:
        self.events[name] += events
        for event in events:
            if isinstance(event, useragent.Incoming) and not self.bob_rings:
                self.bob.respond(event.request, 200, self.now, OFFER)

    def run(self, seconds: float) -> None:
        """Let time pass, from timer to timer."""
        self.deliver()
        stop = self.now + seconds
        while True:
            timers = [time for agent in (self.alice, self.bob) if (time := agent.next_timer()) is not None]
            if not timers or min(timers) > stop:
                break
            self.now = max(self.now, min(timers))
            self.take("alice", self.alice.tick(self.now))
            self.take("bob", self.bob.tick(self.now))
            self.deliver()
        self.now = stop

    def statuses(self, method: str) -> list[int]:
        events = self.events["alice"] + self.events["bob"]
        return [e.status for e in events if isinstance(e, useragent.Finished) and e.method == method]


def connected() -> Wire:
    wire = Wire()
    wire.alice.invite("bob", OFFER, wire.now)
    wire.deliver()
    return wire


def test_call_is_made_and_ended() -> None:
    wire = connected()
    assert wire.sent == [
        "INVITE sip:bob@127.0.0.1:1002 SIP/2.0",
        "SIP/2.0 200 OK",
        "ACK sip:bob@127.0.0.1:1002 SIP/2.0",
    ]
    assert wire.events["alice"] == [useragent.Finished("INVITE", 200, OFFER)]
    assert wire.refused == []
    wire.bob.bye(wire.now)
    wire.deliver()
    (ended,) = [event for event in wire.events["alice"] if isinstance(event, useragent.Ended)]
    assert ended.request.method == "BYE"
    assert wire.statuses("BYE") == [200]
    wire.run(100)
    assert wire.alice.next_timer() is None, "no transaction outlives its time-out"
    assert wire.bob.next_timer() is None


def test_lost_invite_is_repeated_after_half_a_second_then_one_then_two() -> None:
    wire = Wire(lose=lambda n: n < 3)
    wire.alice.invite("bob", OFFER, wire.now)
    wire.run(0.49)
    assert len(wire.sent) == 1
    wire.run(0.02)
    assert len(wire.sent) == 2
    wire.run(1.0)
    assert len(wire.sent) == 3
    wire.run(2.0)
    assert wire.statuses("INVITE") == [200]


def test_lost_ack_is_repeated_when_the_answer_comes_again() -> None:
    wire = Wire(lose=lambda n: n == 2)
    wire.alice.invite("bob", OFFER, wire.now)
    wire.run(0.6)
    assert [line.split()[0] for line in wire.sent] == ["INVITE", "SIP/2.0", "ACK", "SIP/2.0", "ACK"]
    wire.run(40)
    assert len(wire.sent) == 5, "the answer stops with its ACK"


@settings(max_examples=60)
@given(st.lists(st.booleans(), max_size=16))
def test_call_comes_and_goes_whatever_datagrams_are_lost(lost: list[bool]) -> None:
    # Up to five losses in a row of one message: well within 64 T1.
    pattern = [drop and sum(lost[max(0, i - 4) : i]) < 4 for i, drop in enumerate(lost)]
    wire = Wire(lose=lambda n: n < len(pattern) and pattern[n])
    wire.alice.invite("bob", OFFER, wire.now)
    wire.run(31)
    assert wire.statuses("INVITE") == [200]
    wire.alice.bye(wire.now)
    wire.run(40)
    assert wire.statuses("BYE") == [200]
    assert sum(isinstance(event, useragent.Ended) for event in wire.events["bob"]) == 1


def test_invite_that_nobody_answers_times_out_after_32_seconds() -> None:
    wire = Wire(lose=lambda _: True)
    wire.alice.invite("bob", OFFER, wire.now)
    wire.run(31.9)
    assert wire.statuses("INVITE") == []
    assert len(wire.sent) == 7, "at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s (timer A)"
    wire.run(0.2)
    assert wire.statuses("INVITE") == [408]
    wire.alice.invite("bob", OFFER, wire.now)


def test_cancel_waits_for_a_first_response_and_ends_in_487() -> None:
    wire = Wire(bob_rings=True)
    wire.alice.invite("bob", OFFER, wire.now)
    wire.alice.cancel(wire.now)
    wire.deliver()
    assert len(wire.sent) == 1, "CANCEL may not be sent before a response (RFC 3261 section 9.1)"
    (incoming,) = wire.events["bob"]
    assert isinstance(incoming, useragent.Incoming)
    wire.bob.respond(incoming.request, 180, wire.now)
    wire.deliver()
    assert wire.statuses("INVITE") == [487]
    assert wire.statuses("CANCEL") == [200]
    assert isinstance(wire.events["bob"][-1], useragent.Ended)
    assert wire.sent[-1].startswith("ACK"), wire.sent


def test_answer_that_crosses_a_cancel_is_acknowledged_and_ended() -> None:
    wire = Wire()
    wire.alice.invite("bob", OFFER, wire.now)
    wire.alice.cancel(wire.now)
    wire.deliver()
    assert [line.split()[0] for line in wire.sent] == ["INVITE", "SIP/2.0", "ACK", "BYE", "SIP/2.0"]
    assert wire.statuses("BYE") == [200]


def test_second_call_is_busy() -> None:
    wire = connected()
    other = UserAgent(("127.0.0.1", 1003), BOB, "carol")
    other.invite("bob", OFFER, wire.now)
    wire.bob.receive(other.outbox[0][0], other.local, wire.now)
    ((data, address),) = wire.bob.outbox
    response = sip.parse(data)
    assert isinstance(response, Response)
    assert (response.status, address) == (486, other.local)


def test_request_of_an_unknown_call_gets_481_and_an_unknown_method_501() -> None:
    wire = connected()
    for method, status in (("BYE", 481), ("CANCEL", 481), ("PUBLISH", 501), ("OPTIONS", 200)):
        headers = [
            ("Via", f"x;branch=z9{method}"),
            ("From", "<sip:a>;tag=1"),
            ("To", "<sip:b>"),
            ("Call-ID", "other"),
        ]
        request = Request(method, "sip:b", headers=[*headers, ("CSeq", f"1 {method}")])
        wire.bob.outbox.clear()
        wire.bob.receive(request.encode(), ALICE, wire.now)
        assert wire.bob.outbox[0][0].startswith(f"SIP/2.0 {status}".encode())


def test_repeated_request_gets_the_same_response_and_no_second_event() -> None:
    wire = connected()
    wire.alice.bye(wire.now)
    ((bye, _),) = wire.alice.outbox
    assert len(wire.bob.receive(bye, ALICE, wire.now)) == 1
    assert wire.bob.receive(bye, ALICE, wire.now) == []
    assert wire.bob.outbox[0] == wire.bob.outbox[1]


def challenged(status: int, header: str, method: str) -> tuple[UserAgent, Request]:
    """Let a server answer a request with a challenge; return the agent and what it sends then."""
    agent = UserAgent(ALICE, BOB, "alice", "secret", random=random.Random(3))
    if method == "REGISTER":
        agent.register(0.0)
    else:
        agent.invite("600", OFFER, 0.0)
    first = sip.parse(agent.outbox[0][0])
    assert isinstance(first, Request)
    agent.outbox.clear()
    response = sip.response_to(first, status, "t", [(header, 'Digest realm="r", nonce="n", qop="auth"')])
    assert agent.receive(response.encode(), BOB, 0.1) == []
    again = sip.parse(agent.outbox[-1][0])
    assert isinstance(again, Request)
    assert again.cseq == (first.cseq[0] + 1, method)
    assert again.branch != first.branch
    assert again.call_id == first.call_id
    assert again.body == first.body
    return agent, again


@pytest.mark.parametrize("method", ["INVITE", "REGISTER"])
@pytest.mark.parametrize(
    ("status", "challenge", "answer"),
    [(401, "WWW-Authenticate", "Authorization"), (407, "Proxy-Authenticate", "Proxy-Authorization")],
)
def test_challenge_is_answered_once(method: str, status: int, challenge: str, answer: str) -> None:
    agent, again = challenged(status, challenge, method)
    assert 'username="alice"' in again.require(answer)
    acks = [data for data, _ in agent.outbox if data.startswith(b"ACK")]
    assert len(acks) == (1 if method == "INVITE" else 0)
    refused = sip.response_to(again, status, "t", [(challenge, 'Digest realm="r", nonce="n2", qop="auth"')])
    assert agent.receive(refused.encode(), BOB, 0.2) == [useragent.Finished(method, status, b"")]


def test_change_of_a_running_call_is_offered_and_answered() -> None:
    wire = connected()
    wire.alice.reinvite(b"v=0 held", wire.now)
    wire.deliver()
    event = wire.events["bob"][-1]
    assert isinstance(event, useragent.Reoffered)
    assert event.request.body == b"v=0 held"
    wire.bob.respond(event.request, 200, wire.now, OFFER)
    wire.deliver()
    assert wire.statuses("INVITE") == [200, 200]
    assert wire.sent[-1].startswith("ACK")


def test_transfer_is_asked_for_and_reported() -> None:
    wire = connected()
    wire.bob.refer("sip:601@127.0.0.1", wire.now)
    wire.deliver()
    assert wire.events["alice"][-1] == useragent.Referred("sip:601@127.0.0.1")
    assert wire.statuses("REFER") == [202]
    wire.alice.notify(200, wire.now)
    wire.deliver()
    (event,) = [event for event in wire.events["bob"] if isinstance(event, useragent.Received)]
    assert event.request.body == b"SIP/2.0 200 OK\r\n"
    assert (event.request.get("Subscription-State") or "").startswith("terminated")


def test_transfer_to_another_call_names_it_as_the_peer_sees_it() -> None:
    """RFC 3891: to-tag is the peer's own. It travels as an escaped header of the address (RFC 3261)."""
    wire, other = connected(), connected()
    call_id, to_tag, from_tag = other.alice.replaces.split(";")
    assert other.bob.replaces.split(";")[0] == call_id
    mirrored = [other.bob.replaces.split(";")[index].partition("=")[2] for index in (2, 1)]
    assert [to_tag, from_tag] == [f"to-tag={mirrored[0]}", f"from-tag={mirrored[1]}"]
    wire.bob.refer("sip:601@127.0.0.1", wire.now, other.alice.replaces)
    wire.deliver()
    tags = f"%3Bto-tag%3D{mirrored[0]}%3Bfrom-tag%3D{mirrored[1]}"
    assert wire.events["alice"][-1] == useragent.Referred(f"sip:601@127.0.0.1?Replaces={call_id}{tags}")


@given(
    st.integers(0, 4),
    st.integers(0, 12),
    st.sampled_from(["", "X: y", "CSeq: " + "9" * 5000 + " BYE", "Via: x"]),
)
def test_message_with_a_spoilt_header_is_taken_or_refused(message: int, line: int, instead: str) -> None:
    count = 0

    def spoil(data: bytes) -> bytes:
        nonlocal count
        count += 1
        if count - 1 != message:
            return data
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        lines[line % len(lines)] = instead
        return "\r\n".join(filter(None, lines)).encode() + b"\r\n\r\n" + body

    wire = Wire(spoil=spoil)
    wire.alice.invite("bob", OFFER, wire.now)
    wire.run(5)
    for agent in (wire.alice, wire.bob):
        with contextlib.suppress(RuntimeError):  # that side may not know of the call
            agent.bye(wire.now)
    wire.run(400)
    assert wire.alice.next_timer() is wire.bob.next_timer() is None


def test_verbs_out_of_place_are_refused() -> None:
    agent = UserAgent(ALICE, BOB, "alice")
    with pytest.raises(RuntimeError):
        agent.bye(0.0)
    with pytest.raises(RuntimeError):
        agent.cancel(0.0)
