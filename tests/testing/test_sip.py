"""SIP messages and digests: what is read, what is refused, what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.errors import ProtocolError
from arivox.testing import sdp, sip
from arivox.testing.sdp import SessionDescription
from arivox.testing.sip import Request, Response

INVITE = (
    b"INVITE sip:700@127.0.0.1:5060 SIP/2.0\r\n"
    b"v: SIP/2.0/UDP 127.0.0.1:40000;branch=z9hG4bKa;rport\r\n"
    b"v: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKb\r\n"
    b'f: "Tess; <x>" <sip:tester@127.0.0.1>;tag=one\r\n'
    b"To: <sip:700@127.0.0.1;transport=udp>\r\n"
    b"i: c1@127.0.0.1\r\n"
    b"CSeq: 7 INVITE\r\n"
    b"Subject: folded\r\n  over two lines\r\n"
    b"l: 4\r\n\r\nbodyrest"
)


SDP_LINES = (
    "v=0",
    "o=- 1 99999999999999999999999 IN IP4 x",
    "c=IN IP4 127.0.0.1",
    "c=IN IP4 999.0.0.1",
    "m=audio 4000 RTP/AVP 0 8 101",
    "m=audio 99999 RTP/AVP 0",
    "m=audio 0/2 RTP/SAVP 9",
    "m=video 1 RTP/AVP 1",
    "a=rtpmap:101 telephone-event/8000",
    "a=ptime:0",
    "a=inactive",
)


def test_request_is_read_with_compact_and_folded_headers() -> None:
    message = sip.parse(INVITE)
    assert isinstance(message, Request)
    assert (message.method, message.uri) == ("INVITE", "sip:700@127.0.0.1:5060")
    assert message.call_id == "c1@127.0.0.1"
    assert message.cseq == (7, "INVITE")
    assert message.branch == "z9hG4bKa"
    assert len(message.all("via")) == 2
    assert message.get("subject") == "folded over two lines"
    assert message.body == b"body", "what lies behind Content-Length is not the body"


def test_parameters_of_the_uri_are_not_those_of_the_header() -> None:
    assert sip.parameter("<sip:a@b;tag=uri>;tag=header", "tag") == "header"
    assert sip.parameter("<sip:a@b;tag=uri>", "tag") == ""
    assert sip.uri_of('"A" <sip:a@b;x=y>;tag=z') == "sip:a@b;x=y"
    assert sip.uri_of("sip:a@b;tag=z") == "sip:a@b"


def test_message_survives_encoding() -> None:
    request = Request(
        "BYE", "sip:a@b", headers=[("Via", "x;branch=1"), ("Call-ID", "c")], body=b"\x00\r\n\r\n"
    )
    assert sip.parse(request.encode()) == request
    response = Response(486, "Busy Here", headers=[("Call-ID", "c")])
    assert sip.parse(response.encode()) == response


@pytest.mark.parametrize(
    "data",
    [
        b"INVITE sip:a SIP/2.0\r\n",
        b"HELLO\r\n\r\n",
        b"SIP/2.0 700 What\r\n\r\n",
        b"BYE sip:a SIP/2.0\r\nno colon\r\n\r\n",
        b"BYE sip:a SIP/2.0\r\nContent-Length: 9\r\n\r\nshort",
        b"BYE sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n",
        b"BYE sip:a SIP/2.0\r\nTo: \xff\r\n\r\n",
    ],
)
def test_malformed_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        sip.parse(data)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: INVITE[:200] + tail))
def test_garbage_parses_or_raises_protocol_error(data: bytes) -> None:
    try:
        sip.parse(data)
    except ProtocolError:
        pass


def test_missing_header_names_message_and_header() -> None:
    with pytest.raises(ProtocolError, match=r"BYE sip:a SIP/2.0 has no Call-ID header"):
        _ = Request("BYE", "sip:a").call_id


def test_response_copies_what_names_the_transaction() -> None:
    request = sip.parse(INVITE)
    assert isinstance(request, Request)
    response = sip.response_to(request, 486, "two")
    assert response.all("Via") == request.all("Via")
    assert response.get("From") == request.get("From")
    assert response.get("To") == "<sip:700@127.0.0.1;transport=udp>;tag=two"
    assert response.cseq == (7, "INVITE")
    assert sip.parameter(sip.response_to(request, 100, "two").require("To"), "tag") == ""


def test_digest_of_rfc_7616_section_3_9_1() -> None:
    for algorithm, expected in (
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ):
        answer = sip.authorization(
            'Digest realm="http-auth@example.org", qop="auth, auth-int", '
            f"algorithm={algorithm}, "
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
            'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
            method="GET",
            uri="/dir/index.html",
            user="Mufasa",
            password="Circle of Life",
            cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        )
        assert f'response="{expected}"' in answer
        assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in answer
        assert "qop=auth," in answer


def test_digest_without_qop_is_that_of_rfc_2069() -> None:
    answer = sip.authorization(
        'Digest realm="asterisk", nonce="n"',
        method="REGISTER",
        uri="sip:x",
        user="u",
        password="p",
        cnonce="c",
    )
    assert "qop" not in answer
    assert "cnonce" not in answer
    assert 'response="173077110ccc9af88f533ee972decab6"' in answer


@pytest.mark.parametrize(
    "challenge", ["Basic realm=x", 'Digest realm="r"', 'Digest realm="r", nonce="n", algorithm=X']
)
def test_challenge_that_cannot_be_answered_is_refused(challenge: str) -> None:
    with pytest.raises(ProtocolError):
        sip.authorization(challenge, method="INVITE", uri="sip:a", user="u", password="p", cnonce="c")


def test_description_survives_encoding() -> None:
    ours = SessionDescription("127.0.0.1", 4000, ("alaw", "ulaw"), direction="sendonly", version=3)
    assert sdp.parse(ours.encode()) == ours


def test_description_of_the_stream_overrides_that_of_the_session() -> None:
    body = (
        b"v=0\r\no=- 1 5 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\na=sendonly\r\nt=0 0\r\n"
        b"m=audio 4000 RTP/AVP 9 8 96\r\nc=IN IP4 10.0.0.2\r\na=rtpmap:96 telephone-event/8000\r\n"
        b"a=ptime:40\r\n"
        b"m=video 5000 RTP/AVP 99\r\nc=IN IP4 10.0.0.3\r\na=inactive\r\n"
    )
    assert sdp.parse(body) == SessionDescription("10.0.0.2", 4000, ("alaw",), 96, "sendonly", 40, 5)


def test_address_of_zeros_is_a_hold() -> None:
    body = b"v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\n"
    assert sdp.parse(body).direction == "inactive"


def test_answer_takes_the_codecs_of_the_offer_and_mirrors_its_direction() -> None:
    phone = SessionDescription("127.0.0.1", 4000, ("ulaw", "alaw"))
    offer = SessionDescription("127.0.0.1", 5000, ("alaw", "ulaw"), event_type=96, direction="sendonly")
    answer = phone.answer(offer)
    assert (answer.laws, answer.event_type, answer.direction) == (("alaw", "ulaw"), 96, "recvonly")
    with pytest.raises(ProtocolError, match="alaw"):
        SessionDescription("127.0.0.1", 4000, ("ulaw",)).answer(SessionDescription("127.0.0.1", 1, ("alaw",)))


@given(st.lists(st.sampled_from(SDP_LINES) | st.text(max_size=30), max_size=8))
def test_garbled_description_parses_or_raises_protocol_error(lines: list[str]) -> None:
    try:
        description = sdp.parse("\r\n".join(lines).encode())
    except ProtocolError:
        return
    assert 0 <= description.port <= 65535


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio x\r\n",
        b"v=0\r\nm=audio 4000 RTP/AVP 0\r\n",
        b"c=IN IP4 example.org\r\nm=audio 4000 RTP/AVP 0\r\n",
        b"c=IN IP4 127.0.0.1\r\nm=audio 70000 RTP/AVP 0\r\n",
    ],
)
def test_description_without_audio_or_address_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        sdp.parse(body)


def test_codec_that_a_phone_does_not_speak_is_offered_first() -> None:
    body = SessionDescription("127.0.0.1", 4000, ("ulaw",), foreign=sdp.G729).encode()
    lines = body.decode().splitlines()
    assert "m=audio 4000 RTP/AVP 18 0 101" in lines
    assert lines.index("a=rtpmap:18 G729/8000") < lines.index("a=rtpmap:0 PCMU/8000")
    read = sdp.parse(body)
    assert (read.laws, read.formats) == (("ulaw",), (18, 0, 101))
