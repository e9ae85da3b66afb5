"""`ripple gc`: one round of retention, now."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from redis import Redis, RedisError

from ripple_core.cli.errors import one_line_errors

if TYPE_CHECKING:
    from ripple_core.contract.retention import RetentionReport


@one_line_errors
def gc(
    data_dir: Annotated[
        Path, typer.Option(envvar="RIPPLE_DATA_DIR", help="Videos and the embedded Redis's data.")
    ] = Path("ripple-data"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; only tell what would go.")] = False,
) -> None:
    """Remove videos and records whose time is over, and the oldest videos over the quota.

    Workers do the same once a minute. RIPPLE_VIDEO_TTL_SECONDS, RIPPLE_JOB_TTL_SECONDS and RIPPLE_DISK_QUOTA_BYTES say
    for how long and how much is kept. Works on the Redis in REDIS_URL or the data folder's embedded one.
    """
    from ripple_core.cli.stack import redis_url
    from ripple_core.contract.retention import Retention
    from ripple_core.contract.settings import SharedSettings
    from ripple_core.contract.store import JobStore
    from ripple_core.contract.videos import open_video_store

    settings = SharedSettings(data_dir=data_dir)
    # A mistyped folder would otherwise be made, with an empty Redis in it.
    if settings.redis_url is None and not data_dir.is_dir():
        raise FileNotFoundError(f"--data-dir: the folder {data_dir} does not exist")
    try:
        with redis_url(data_dir) as url, Redis.from_url(url) as redis:
            report = Retention(JobStore(redis), open_video_store(settings), settings).run(time.time(), dry_run)
    except RedisError as error:
        raise RuntimeError(f"REDIS_URL: Redis cannot be used: {error}") from None
    _show(report, dry_run)


def _show(report: "RetentionReport", dry_run: bool) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    from ripple_core.cli.show import console

    table = Table("", "", title="Would go" if dry_run else "Removed", title_justify="left", show_header=False)
    table.columns[1].justify = "right"
    table.add_row("videos", str(report.removed_videos))
    table.add_row("files of unknown jobs", str(report.removed_orphans))
    table.add_row("records of jobs", str(report.removed_records))
    table.add_row("disk space", decimal(report.freed_bytes))
    console.print(table)
    if report.kept_because_served:
        console.print(f"{report.kept_because_served} kept for now: somebody is fetching their files.")
