"""The beta's shapes, for testing clients of compatible servers that still speak them.

OpenAI itself removed the beta on 2026-05-12; ``openai.types.beta.realtime`` keeps its types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from arivox.emulator.openai.messages import RequestError

_RENAMED: Final = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
_FORMATS: Final = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_FORMAT_TYPES: Final = {old: new for new, old in _FORMATS.items()}
_CONTENT: Final = {"output_text": "text", "output_audio": "audio"}
_INPUT_KEYS: Final = {
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_KEPT_KEYS: Final = ("instructions", "tools", "tool_choice", "tracing", "model")


def to_beta(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the beta sends for a GA event: mostly one, none for what it did not know."""
    type_ = event["type"]
    if type_ == "conversation.item.done":
        return
    event = {**event, "type": _RENAMED.get(type_, type_)}
    if "session" in event:
        event["session"] = _session_to_beta(event["session"])
    if "item" in event:
        event["item"] = _item_to_beta(event["item"])
    if "response" in event:
        event["response"] = _response_to_beta(event["response"])
    if type_ == "response.function_call_arguments.done":
        del event["name"]
    yield event


def translate(event: dict[str, Any]) -> None:
    """Make a client's beta event a GA event, in place.

    Raises:
        RequestError: It has keys that the beta does not know.
    """
    for key, from_beta in (
        ("session", _session_from_beta),
        ("response", _response_from_beta),
        ("item", _item_from_beta),
    ):
        if isinstance(event.get(key), dict):
            event[key] = from_beta(event[key])


def _session_from_beta(session: dict[str, Any]) -> dict[str, Any]:
    old = dict(session)
    audio_in: dict[str, Any] = {}
    audio_out: dict[str, Any] = {}
    new: dict[str, Any] = {"type": "realtime", "audio": {"input": audio_in, "output": audio_out}}
    for key in _KEPT_KEYS:
        if key in old:
            new[key] = old.pop(key)
    for key, name in _INPUT_KEYS.items():
        if key in old:
            audio_in[name] = old.pop(key)
    for key, side in (("input_audio_format", audio_in), ("output_audio_format", audio_out)):
        if key in old:
            side["format"] = _format_from_beta(old.pop(key), f"session.{key}")
    for key in ("voice", "speed"):
        if key in old:
            audio_out[key] = old.pop(key)
    if "modalities" in old:
        new["output_modalities"] = ["audio" if "audio" in old.pop("modalities") else "text"]
    if "max_response_output_tokens" in old:
        new["max_output_tokens"] = old.pop("max_response_output_tokens")
    old.pop("temperature", None)
    _nothing_left(old, "session")
    return new


def _response_from_beta(response: dict[str, Any]) -> dict[str, Any]:
    old = dict(response)
    new: dict[str, Any] = {
        key: old.pop(key)
        for key in ("instructions", "tools", "tool_choice", "metadata", "conversation", "input")
        if key in old
    }
    output: dict[str, Any] = {}
    if "output_audio_format" in old:
        form = _format_from_beta(old.pop("output_audio_format"), "response.output_audio_format")
        output["format"] = form
    if "voice" in old:
        output["voice"] = old.pop("voice")
    if output:
        new["audio"] = {"output": output}
    if "modalities" in old:
        new["output_modalities"] = ["audio" if "audio" in old.pop("modalities") else "text"]
    if "max_response_output_tokens" in old:
        new["max_output_tokens"] = old.pop("max_response_output_tokens")
    old.pop("temperature", None)
    _nothing_left(old, "response")
    return new


def _item_from_beta(item: dict[str, Any]) -> dict[str, Any]:
    names = {"text": "output_text"}
    content = [
        {**part, "type": names.get(part.get("type"), part.get("type"))} for part in item.get("content", ())
    ]
    return {**item, "content": content} if content else item


def _format_from_beta(name: str, param: str) -> dict[str, str]:
    if name not in _FORMAT_TYPES:
        raise RequestError("invalid_value", f"Invalid value: '{name}'.", param=param)
    return {"type": _FORMAT_TYPES[name]}


def _nothing_left(keys: dict[str, Any], at: str) -> None:
    if keys:
        param = f"{at}.{next(iter(keys))}"
        raise RequestError("unknown_parameter", f"Unknown parameter: '{param}'.", param=param)


def _session_to_beta(session: dict[str, Any]) -> dict[str, Any]:
    audio_in, audio_out = session["audio"]["input"], session["audio"]["output"]
    return {
        "id": session["id"],
        "object": "realtime.session",
        "expires_at": session["expires_at"],
        **{key: session[key] for key in _KEPT_KEYS},
        "modalities": _modalities(session["output_modalities"]),
        "voice": audio_out["voice"],
        "speed": audio_out["speed"],
        "input_audio_format": _FORMATS[audio_in["format"]["type"]],
        "output_audio_format": _FORMATS[audio_out["format"]["type"]],
        **{key: audio_in[name] for key, name in _INPUT_KEYS.items()},
        "temperature": 0.8,
        "max_response_output_tokens": session["max_output_tokens"],
    }


def _response_to_beta(response: dict[str, Any]) -> dict[str, Any]:
    output = response["audio"]["output"]
    return {
        "object": "realtime.response",
        **{
            key: response[key]
            for key in ("id", "status", "status_details", "conversation_id", "usage", "metadata")
        },
        "output": [_item_to_beta(item) for item in response["output"]],
        "modalities": _modalities(response["output_modalities"]),
        "voice": output["voice"],
        "output_audio_format": _FORMATS[output["format"]["type"]],
        "temperature": 0.8,
        "max_output_tokens": response["max_output_tokens"],
    }


def _item_to_beta(item: dict[str, Any]) -> dict[str, Any]:
    if "content" not in item:
        return item
    content = [{**part, "type": _CONTENT.get(part["type"], part["type"])} for part in item["content"]]
    return {**item, "content": content}


def _modalities(modalities: list[str]) -> list[str]:
    return ["text", "audio"] if modalities == ["audio"] else ["text"]
