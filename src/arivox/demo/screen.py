"""The demo's screen: a call's timeline as lines in the terminal, and a summary at its end."""

from __future__ import annotations

import statistics
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arivox.call.timeline import Entry, Timeline

_STYLES: Final = {"agent": "bold magenta", "caller": "bold cyan", "call": "dim", "state": "yellow"}


class Screen:
    """Watches timelines. ``watch`` is the watcher to give to the service."""

    def __init__(self, console: Console) -> None:
        self.timelines: list[Timeline] = []
        self._console = console
        self._pending: dict[str, Entry] = {}  # items being spoken whose words are not known yet
        self._texts: dict[str, str] = {}  # words of items that are not spoken yet
        self._cuts: dict[str, Entry] = {}  # interruptions of items whose words are not known yet
        self._speaking_since: Entry | None = None  # the caller

    def watch(self, timeline: Timeline, entry: Entry) -> None:
        """Show one event."""
        data = entry.data
        match entry.kind:
            case "call.started":
                self.timelines.append(timeline)
                self._line(entry, "call", f"{data['caller']} calls {data['exten']}")
            case "call.answered":
                self._line(entry, "call", "answered")
            case "provider.ready":
                self._line(entry, "call", f"the AI's session is ready after {data['ms']} ms")
            case "provider.reconnected":
                self._line(entry, "call", f"[AI] goes on over another connection ({data['cause']})")
            case "state":
                self._line(entry, "state", f"{data['before']} -> {data['after']}")
            case "tool" if "ms" in data:
                self._line(entry, "state", f"{data['name']}: {_result(str(data['output']))}")
            case "agent.speaks":
                self._agent(entry, self._texts.pop(str(data["item"]), None))
            case "agent.said":
                self._said(str(data["item"]), str(data["text"]))
            case "caller.speech_started":
                self._speaking_since = entry
            case "caller.said":
                self._line(self._speaking_since or entry, "caller", str(data["text"]) or "(not understood)")
            case "barge_in" if data["item"] in self._pending:
                self._cuts[str(data["item"])] = entry
            case "barge_in":
                self._cut(entry)
            case "provider.error" | "provider.failed" | "provider.answer_failed":
                self._line(entry, "call", f"[AI] {data['error']}")
            case "call.ended":
                self._line(entry, "call", f"ended: {data['reason']}")
            case _:
                pass

    def note(self, text: str) -> None:
        """Show a line that belongs to no call."""
        self._console.print(Text(text, style="dim"), soft_wrap=True)

    def summary(self, timeline: Timeline) -> dict[str, int | float | str | None]:
        """Print the numbers of a call and return them."""
        numbers = summarise(timeline)
        table = Table(title="The call in numbers", title_justify="left", show_header=False)
        for name, value in numbers.items():
            table.add_row(name, "-" if value is None else str(value))
        self._console.print(table)
        return numbers

    def _agent(self, entry: Entry, text: str | None) -> None:
        if text is None:
            self._pending[str(entry.data["item"])] = entry
            return
        latency = entry.data["latency_ms"]
        after = f"   ({latency} ms after the caller)" if latency is not None else ""
        self._line(entry, "agent", text + after)

    def _said(self, item: str, text: str) -> None:
        spoken = self._pending.pop(item, None)
        if spoken is None:
            self._texts[item] = text
            return
        self._agent(spoken, text)
        cut = self._cuts.pop(item, None)
        if cut is not None:
            self._cut(cut)

    def _cut(self, entry: Entry) -> None:
        heard, received = entry.data["heard_ms"], entry.data["received_ms"]
        told = "; the AI is told so" if entry.data["told"] else ""
        self._line(entry, "caller", f"interrupts: {heard} ms of {received} ms were heard{told}")

    def _line(self, entry: Entry, who: str, text: str) -> None:
        line = Text(f"{entry.ms / 1000:6.2f} s  ", style="dim")
        line.append(f"{who:7}", style=_STYLES[who])
        line.append(text, style="default" if who in ("agent", "caller") else "dim")
        self._console.print(line, soft_wrap=True)


def _result(output: str) -> str:
    """Return what a tool found, without what the AI is told to say of it."""
    found = msgspec.json.decode(output)
    text = ", ".join(map(str, found.values())) if isinstance(found, dict) else str(found)
    return text.partition(" Say: ")[0]


def summarise(timeline: Timeline) -> dict[str, int | float | str | None]:
    """Return the numbers of a call, by what they mean."""
    answered = timeline.find("call.answered")
    speaks = timeline.find("agent.speaks")
    latencies = [latency for e in speaks if isinstance(latency := e.data["latency_ms"], int)]
    counters = timeline.find("call.counters")
    counted = counters[-1].data if counters else {}
    cuts = timeline.find("barge_in")
    first = speaks[0].ms - answered[0].ms if speaks and answered else None
    return {
        "length, s": counted.get("seconds"),
        "answer to the agent's first sound, ms": first,
        "turns of the caller": len(timeline.find("caller.said")),
        "answers of the agent": len(speaks),
        "end of the caller's turn to the agent's answer, median ms": (
            round(statistics.median(latencies)) if latencies else None
        ),
        "interruptions": len(cuts),
        "heard of the interrupted answer, ms": cuts[0].data["heard_ms"] if cuts else None,
        "states passed": len(timeline.find("state")),
        "RTP packets in / lost": f"{counted.get('rtp_in')} / {counted.get('rtp_lost')}",
        "RTP packets out": counted.get("rtp_out"),
    }
