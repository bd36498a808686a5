"""`make demo`: a story of trust with four agents on a real hub.

Each agent is its own process, and the officer uses the admin. The story calls no code of the hub.
It uses the hub on ATP_PORT, with ATP_OFFICER and ATP_OFFICER_PASSWORD. If no hub runs there, it
starts one in a temporary folder and stops it afterwards. The exit code is 0 only if every event
happened as printed.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from typing import Final

import httpx

from atp.errors import ATPError
from examples.story.chapters import CHAPTERS
from examples.story.officer import Officer
from examples.story.stage import open_stage
from examples.story.telling import Telling, open_telling
from examples.story.voice import StoryError, Voice

__all__ = ["main"]

EXIT_UNTRUE: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells return it


def main() -> int:
    """Play the story; return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for terminals that lack a character
    voice = Voice()
    try:
        with open_stage(voice) as stage, Officer(stage.url) as officer:
            telling = open_telling(voice, stage, officer)
            asyncio.run(_tell(telling))
    except (StoryError, ATPError, httpx.HTTPError) as problem:
        voice.failure(f"The demo failed: {problem}")
        return EXIT_UNTRUE
    except KeyboardInterrupt:
        voice.failure("Interrupted.")
        return EXIT_INTERRUPTED
    return 0


async def _tell(telling: Telling) -> None:
    began = time.monotonic()
    telling.voice.say("Each agent is a process. + marks what happened, x what the hub refused.")
    try:
        for title, happen in CHAPTERS:
            telling.voice.chapter(title)
            await happen(telling)
    finally:
        await asyncio.gather(*(player.stop() for player in telling.cast.values()))
    telling.voice.chapter("What was shown")
    telling.voice.table(("what", "where in the trail"), telling.shown)
    seconds = time.monotonic() - began
    telling.voice.say(f"All of this happened on a real hub, in {seconds:.0f} seconds.")


if __name__ == "__main__":
    sys.exit(main())
