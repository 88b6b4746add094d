"""What is done once a day, by whichever instance the platform picks."""

from __future__ import annotations

import logging

from routing.wiring import current

_log = logging.getLogger(__name__)


async def remove_old_decisions() -> None:
    """Removes decisions older than `[decisions] retention_days`, and answers that nobody gets any more.

    Raises what failed, for the platform to report.
    """
    app = await current()
    _log.info("Old decisions removed: %d", await app.archive.sweep())
    _log.info("Old answers removed: %d", await app.answers.sweep())
