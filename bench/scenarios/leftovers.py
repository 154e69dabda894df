"""What is left when all calls are over, among them calls given up in the worst moments."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from arivox.testing.phone import SipPhone
from bench import process
from bench.report import NONE_LEFT, Result, Row
from bench.testbed import AGENT, Plan, Testbed

_SETTLE_S: Final = 5.0
# A call is set up within some 30 ms: what is left behind depends on where in it the caller gives up.
_PAUSES_S: Final = (*(0.002 * step for step in range(25)), 0.1, 0.5)


async def measure(bed: Testbed, plan: Plan) -> Result:
    """Hang up during set-up, right after the answer and in mid-answer; then look at what is still there."""
    await bed.ai.be("Monologue", seconds=10.0, speed=4.0)
    for pause_s in _PAUSES_S * (1 if plan.quick else 3):
        await _hang_up_after(bed, pause_s)
    for _ in range(round(_SETTLE_S / 0.1)):
        left = await _look(bed)
        if not any(left.values()):
            break
        await asyncio.sleep(0.1)
    note = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    complaints = bed.service.complaints()
    ended = len(bed.service.events("call ended"))
    status = await bed.service.stop()
    return Result(
        [
            Row("channels, bridges, sockets, sessions left", sum(left.values()), "", NONE_LEFT, note),
            Row("warnings and errors of the service", len(complaints), "", note="; ".join(complaints[:3])),
            Row(
                "exit status of the service",
                -1 if status is None else status,
                "",
                NONE_LEFT,
                f"{ended} calls served",
            ),
        ],
        {"left": left, "complaints": complaints, "calls": ended},
    )


async def _hang_up_after(bed: Testbed, pause_s: float) -> None:
    """Dial, and give up ``pause_s`` after the INVITE, however far the call has come."""
    async with SipPhone(("127.0.0.1", bed.asterisk.sip_port)) as phone:
        dialling = asyncio.create_task(phone.call(AGENT))
        await asyncio.sleep(pause_s)
        await phone.hangup()
        await dialling


async def _look(bed: Testbed) -> dict[str, Any]:
    channels = await asyncio.to_thread(bed.asterisk.cli, "core show channels count")
    bridges = await asyncio.to_thread(bed.asterisk.cli, "bridge show all")
    return {
        "channels": int(channels.split()[0]),
        "bridges": len(bridges.strip().splitlines()) - 1,
        "UDP sockets": process.udp_sockets(bed.service.pid) - bed.sockets_before,
        "AI sessions": await bed.ai.open_sessions(),
        "calls without an end": len(bed.service.events("call")) - len(bed.service.events("call ended")),
    }
