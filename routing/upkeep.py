"""What is done once a day, by whichever instance the platform picks."""

from __future__ import annotations

import logging

from routing.wiring import current

_log = logging.getLogger(__name__)


async def remove_old_decisions() -> None:
    """Removes decisions older than `[decisions] retention_days`. Raises what failed, for the platform to report."""
    removed = await (await current()).archive.sweep()
    _log.info("Old decisions removed: %d", removed)
