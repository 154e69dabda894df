"""Google's SDK completes spoken turns with the emulator, over TLS; the server's frames fit its types."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import google.auth.transport.requests
import numpy as np
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gemini_oracle import assert_valid_server
from google import genai
from google.genai import errors, types
from google.genai.live import AsyncSession
from google.oauth2 import credentials, service_account

from arivox.audio.format import SLIN16, SLIN24
from arivox.audio.g711 import Pcm
from arivox.emulator import sound
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.brain import Brain
from arivox.emulator.dialogue import Dialogue
from arivox.emulator.echo import Talker
from arivox.emulator.gemini import GeminiOptions, GeminiSession, TokenServer, TokenStore
from arivox.emulator.script import Script, Stage
from arivox.emulator.server import EmulatorServer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The SDK's ephemeral token support is experimental"),
    pytest.mark.filterwarnings("ignore:The SDK's token creation implementation is experimental"),
]

MODEL = "gemini-3.8-live"
FAST = GeminiOptions(speed=20)
ME = types.FunctionDeclaration(
    name="move_to_state",
    description="Move on.",
    behavior=types.Behavior.BLOCKING,
    parameters=types.Schema(
        type=types.Type.OBJECT,
        properties={
            "state": types.Schema(type=types.Type.STRING, enum=["day"]),
            "value": types.Schema(type=types.Type.STRING),
        },
    ),
)
Connect = Callable[[EmulatorServer], genai.Client]


class Tongue:
    rate = 16000

    def say(self, text: str) -> Pcm:
        return np.full(16 * 20 * len(text), 4000, np.int16)


class Ear:
    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        return "a toothache" if len(pcm) > rate // 2 else ""


def dialogue() -> Behaviour:
    return Dialogue(Brain(), Tongue(), Ear())


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of the server and of its clients."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def http(server: EmulatorServer, tls: tuple[Any, ssl.SSLContext], version: str) -> types.HttpOptions:
    return types.HttpOptions(
        base_url=f"https://127.0.0.1:{server.port}",
        api_version=version,
        async_client_args={"ssl": tls[1]},
    )


def studio(server: EmulatorServer, tls: Any, key: str = "key", version: str = "v1beta") -> genai.Client:
    return genai.Client(api_key=key, http_options=http(server, tls, version))


def vertex(
    server: EmulatorServer, tls: Any, token: str | credentials.Credentials, version: str = "v1beta1"
) -> genai.Client:
    return genai.Client(
        vertexai=True,
        project="project",
        location="us-central1",
        credentials=credentials.Credentials(token) if isinstance(token, str) else token,  # type: ignore[no-untyped-call]
        http_options=http(server, tls, version),
    )


def config(**more: Any) -> types.LiveConnectConfig:
    return types.LiveConnectConfig(
        response_modalities=[types.Modality.AUDIO],
        system_instruction=types.Content(
            parts=[types.Part(text="You are a clinic.\nCurrent state: reason\nWhy do you call?")]
        ),
        tools=[types.Tool(function_declarations=[ME])],
        speech_config=types.SpeechConfig(
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore"))
        ),
        realtime_input_config=types.RealtimeInputConfig(
            automatic_activity_detection=types.AutomaticActivityDetection(silence_duration_ms=200),
            turn_coverage=types.TurnCoverage.TURN_INCLUDES_ONLY_ACTIVITY,
        ),
        input_audio_transcription=types.AudioTranscriptionConfig(),
        output_audio_transcription=types.AudioTranscriptionConfig(),
        session_resumption=types.SessionResumptionConfig(handle=more.pop("handle", None)),
        **more,
    )


@asynccontextmanager
async def checked(
    server: EmulatorServer, client: genai.Client, setup: types.LiveConnectConfig | None = None
) -> AsyncIterator[AsyncSession]:
    """Connect; at the end, hold every frame of the server against the SDK's types."""
    async with client.aio.live.connect(model=MODEL, config=setup or config()) as session:
        yield session
    for frame in server.session.record.sent():
        assert_valid_server(frame)


async def turn(session: AsyncSession) -> list[types.LiveServerMessage]:
    """Return the messages up to the end of the model's turn."""
    messages = [message async for message in session.receive()]
    assert messages, "the connection ended"
    return messages


async def until_the_end(session: AsyncSession, messages: list[types.LiveServerMessage]) -> None:
    while message := await anext(session.receive()):
        messages.append(message)


async def until_call(session: AsyncSession) -> tuple[list[types.LiveServerMessage], types.FunctionCall]:
    messages = []
    async for message in session.receive():
        messages.append(message)
        if message.tool_call is not None:
            assert message.tool_call.function_calls is not None
            return messages, message.tool_call.function_calls[0]
    raise AssertionError("the turn ended without a call")


async def speak(session: AsyncSession, ms: int = 800, silence_ms: int = 300) -> None:
    speech = sound.tone(SLIN16, ms) + SLIN16.silence * (SLIN16.rate * silence_ms // 1000)
    for start in range(0, len(speech), 640):
        blob = types.Blob(data=speech[start : start + 640], mime_type="audio/pcm;rate=16000")
        await session.send_realtime_input(audio=blob)


def audio(messages: list[types.LiveServerMessage]) -> bytes:
    return b"".join(message.data for message in messages if message.data)


def words(messages: list[types.LiveServerMessage], side: str) -> str:
    found = [getattr(message.server_content, side, None) for message in messages]
    return "".join(piece.text for piece in found if piece is not None)


def handle(messages: list[types.LiveServerMessage]) -> str:
    updates = [message.session_resumption_update for message in messages]
    return [update.new_handle for update in updates if update is not None and update.new_handle][-1]


async def converse(server: EmulatorServer, client: genai.Client) -> None:
    """Be greeted, speak, answer a call and hear the next question."""
    async with checked(server, client) as session:
        await session.send_realtime_input(text="The call begins. Greet the caller.")
        greeting = await turn(session)
        assert SLIN24.ms(len(audio(greeting))) == 20 * len("Why do you call?")
        assert words(greeting, "output_transcription") == "Why do you call?"
        usage = greeting[-1].usage_metadata
        assert usage is not None
        assert usage.response_token_count == round(25 * 0.02 * len("Why do you call?"))

        await speak(session)
        messages, call = await until_call(session)
        assert words(messages, "input_transcription") == "a toothache"
        assert (call.name, call.args) == ("move_to_state", {"state": "day", "value": "a toothache"})
        await session.send_tool_response(
            function_responses=types.FunctionResponse(
                id=call.id, name=call.name, response={"output": "Current state: day\nWhich day?"}
            )
        )
        assert words(await turn(session), "output_transcription") == "Which day?"
    assert server.session.record.audio_received[: 640 * 10] == sound.tone(SLIN16, 800)[: 640 * 10]


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
async def test_a_conversation_with_a_key(tls: Any, version: str) -> None:
    async with EmulatorServer(dialogue, api_keys={"key"}, gemini=FAST, ssl_context=tls[0]) as server:
        await converse(server, studio(server, tls, version=version))
        assert version in server.session.path
        assert "key" not in server.session.path


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_conversation_on_vertex(tls: Any, version: str) -> None:
    async with EmulatorServer(dialogue, api_keys={"tok"}, gemini=FAST, ssl_context=tls[0]) as server:
        await converse(server, vertex(server, tls, "tok", version))
        session = server.session.session
        assert isinstance(session, GeminiSession)
        assert session.setup is not None
        assert session.setup.model == (
            f"projects/project/locations/us-central1/publishers/google/models/{MODEL}"
        )


async def test_a_conversation_with_an_ephemeral_token_of_the_sdk(tls: Any) -> None:
    store = TokenStore()
    options = GeminiOptions(speed=20, tokens=store)
    async with (
        TokenServer(store, api_keys={"key"}) as tokens,
        EmulatorServer(dialogue, api_keys={"key"}, gemini=options, ssl_context=tls[0]) as server,
    ):
        mint = genai.Client(
            api_key="key", http_options=types.HttpOptions(base_url=tokens.url, api_version="v1alpha")
        )
        token = await asyncio.to_thread(
            mint.auth_tokens.create,
            config=types.CreateAuthTokenConfig(
                uses=1,
                expire_time=datetime.now(UTC) + timedelta(minutes=10),
                live_connect_constraints=types.LiveConnectConstraints(model=MODEL, config=config()),
                lock_additional_fields=[],
            ),
        )
        mint.close()
        assert token.name is not None
        client = studio(server, tls, token.name, "v1alpha")
        await converse(server, client)
        assert server.session.path.endswith("BidiGenerateContentConstrained")
        with pytest.raises(errors.APIError, match="used up"):
            async with client.aio.live.connect(model=MODEL, config=config()):
                pass


async def test_a_service_account_fetches_its_token(tls: Any) -> None:
    store = TokenStore()
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    async with (
        TokenServer(store) as tokens,
        EmulatorServer(
            dialogue, api_keys={"x"}, gemini=GeminiOptions(speed=20, tokens=store), ssl_context=tls[0]
        ) as server,
    ):
        account = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            {
                "type": "service_account",
                "client_email": "me@project.iam.gserviceaccount.com",
                "private_key": pem.decode(),
                "token_uri": tokens.token_url,
            },
            scopes=["https://www.googleapis.com/auth/cloud-platform"],
        )
        await asyncio.to_thread(account.refresh, google.auth.transport.requests.Request())
        assert tokens.granted == 1
        assert store.accepts(account.token)
        await converse(server, vertex(server, tls, account.token))
        wrong = account.with_scopes(["https://www.googleapis.com/auth/drive"])
        with pytest.raises(google.auth.exceptions.RefreshError, match="scope"):
            await asyncio.to_thread(wrong.refresh, google.auth.transport.requests.Request())


async def test_an_interruption_and_a_handle_that_goes_on(tls: Any) -> None:
    async with EmulatorServer(dialogue, gemini=GeminiOptions(speed=2), ssl_context=tls[0]) as server:
        client = studio(server, tls)
        async with checked(server, client) as session:
            await session.send_realtime_input(text=f'Say: "{"A long story. " * 20}"')
            async for message in session.receive():
                if message.data:
                    break
            await speak(session, silence_ms=0)
            rest = await turn(session)
            contents = [message.server_content for message in rest if message.server_content]
            assert [content.interrupted for content in contents].count(True) == 1
            assert not any(content.generation_complete for content in contents)
            assert contents[-1].turn_complete
            async for message in session.receive():
                if message.session_resumption_update is not None:
                    break
        wanted = handle([message])
        async with checked(server, client, config(handle=wanted)) as session:
            await session.send_realtime_input(text="Say: “Where were we?”")
            assert words(await turn(session), "output_transcription") == "Where were we?"
        resumed = server.session.session
        assert isinstance(resumed, GeminiSession)
        assert [entry.role for entry in resumed.conversation.entries] == ["user", "model", "user", "model"]
        assert resumed.conversation.entries[0].text.startswith('Say: "A long story.')


async def test_refusals_reach_the_sdk(tls: Any) -> None:
    async with EmulatorServer(dialogue, api_keys={"key"}, ssl_context=tls[0]) as server:
        with pytest.raises(errors.APIError, match="API key not valid") as refused:
            async with studio(server, tls, "bad").aio.live.connect(model=MODEL, config=config()):
                pass
        assert refused.value.code == 1007
        with pytest.raises(errors.APIError, match="is not found for API version v1beta") as refused:
            async with studio(server, tls).aio.live.connect(model="gemini-1", config=config()):
                pass
        assert refused.value.code == 1008
        with pytest.raises(Exception, match="HTTP 401"):
            async with vertex(server, tls, "bad").aio.live.connect(model=MODEL, config=config()):
                pass
        assert server.refused == 1


async def test_every_client_message_of_the_sdk_is_taken(tls: Any) -> None:
    async with EmulatorServer(Script, ssl_context=tls[0]) as server:
        setup = config(
            history_config=types.HistoryConfig(initial_history_in_client_content=True),
            context_window_compression=types.ContextWindowCompressionConfig(
                trigger_tokens=25600, sliding_window=types.SlidingWindow(target_tokens=12800)
            ),
        )
        async with checked(server, vertex(server, tls, "tok"), setup) as session:
            assert session.session_id
            await session.send_client_content(turns=types.Content(role="user", parts=[types.Part(text="x")]))
            note = types.Content(role="system", parts=[types.Part(text="Be brief.")])
            await session.send_client_content(turns=note, turn_complete=False)
            await session.send_context_update(tools=[])
            await session.send_realtime_input(audio_stream_end=True)
            await session.send_realtime_input(video=types.Blob(data=b"\xff\xfe", mime_type="image/jpeg"))
            await server.session.record.wait("realtimeInput.video")
            state = server.session.session
            assert (state.instructions, state.tools) == ("Be brief.", {})
        assert [frame.kind for frame in server.session.record.received()] == [
            "setup",
            "clientContent",
            "clientContent",
            "contextUpdate",
            "realtimeInput.audioStreamEnd",
            "realtimeInput.video",
        ]


async def test_a_script_speaks_calls_and_goes_away(tls: Any) -> None:
    async def scenario(stage: Stage) -> None:
        assert isinstance(stage.session, GeminiSession)
        await stage.wait_for("realtimeInput.text")
        await stage.say("Hello there.", speed=20)
        await stage.call("move_to_state", {"state": "day"})
        await stage.wait_for("toolResponse")
        await stage.say("Good-bye.", speed=20)
        stage.session.go_away(0.2, stage.connection.record.clock())

    script = Script(scenario, answers=False)
    async with EmulatorServer(lambda: script, ssl_context=tls[0]) as server:
        client = studio(server, tls)
        async with client.aio.live.connect(model=MODEL, config=config()) as session:
            await session.send_realtime_input(text="hello")
            assert words(await turn(session), "output_transcription") == "Hello there."
            _, call = await until_call(session)
            response = types.FunctionResponse(id=call.id, name=call.name, response={"output": "ok"})
            await session.send_tool_response(function_responses=response)
            messages: list[types.LiveServerMessage] = []
            with pytest.raises(errors.APIError):
                await until_the_end(session, messages)
            ends = [message.go_away for message in messages if message.go_away is not None]
            assert [end.time_left for end in ends] == ["0.2s"]
        await script.finished()


async def test_a_talker_talks_without_end(tls: Any) -> None:
    async with EmulatorServer(lambda: Talker(marked=True, speed=10), ssl_context=tls[0]) as server:
        async with studio(server, tls).aio.live.connect(model=MODEL, config=config()) as session:
            await session.send_realtime_input(text="hello")
            heard = b""
            async for message in session.receive():
                heard += message.data or b""
                if SLIN24.ms(len(heard)) >= 500:
                    break
        assert heard == sound.marks(SLIN24, SLIN24.ms(len(heard)))
