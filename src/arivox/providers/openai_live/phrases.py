"""What the agent is told in our words."""

from __future__ import annotations

from typing import Final

GREET: Final = "Greet the caller now, as your instructions say."
GO_ON: Final = "Speak to the caller now: go on where the conversation stands, as your instructions say."
DO: Final = "Do this now: "
DO_ALL: Final = "Do this now: what you were just told."
ALONE: Final = (
    "Nobody can work on what you just handed over: there are no tools in this call. "
    "Answer the caller now, by yourself, with what you know."
)
TASK_FAILED: Final = (
    "The task that you handed over has failed, and nothing more comes of it. Do not say that it was done."
)
RETURNED: Final = "A tool that you called has returned: "
REMEMBER: Final = "From here on this is your task, in place of the task before it:\n"
