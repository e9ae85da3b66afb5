"""`ripple keys`: who may call the API."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from redis import Redis, RedisError

from ripple_core.cli.errors import one_line_errors
from ripple_core.contract.errors import RippleError

keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

DataDir = Annotated[Path, typer.Option(envvar="RIPPLE_DATA_DIR", help="Folder of the embedded Redis.")]
_DATA_DIR = Path("ripple-data")


@keys_app.command()
@one_line_errors
def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    rate_limit: Annotated[
        str | None, typer.Option(help="Submissions, as in 60/minute (second, minute, hour, day).")
    ] = None,
    max_active_jobs: Annotated[int | None, typer.Option(min=1, help="Queued and running jobs at a time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Make a key and print it, this once. From the first key on, every request needs one."""
    from ripple_core.cli.show import console
    from ripple_core.contract.keys import ApiKeys

    with _redis(data_dir) as redis:
        key, token = ApiKeys(redis).create(name, rate_limit, max_active_jobs)
    if as_json:
        print(json.dumps({"id": key.id, "name": key.name, "key": token}))  # noqa: T201
        return
    console.print(f"{token}\n", markup=False)
    console.print(f"This is {key.id}; it is shown this once. Send it as `Authorization: Bearer KEY`,")
    console.print("or set RIPPLE_API_KEY for `ripple generate` and OPENAI_API_KEY for the openai package.")


@keys_app.command("list")
@one_line_errors
def list_keys(data_dir: DataDir = _DATA_DIR) -> None:
    """List all keys, without what makes them work."""
    from rich.markup import escape
    from rich.table import Table

    from ripple_core.cli.show import console
    from ripple_core.contract.keys import ApiKeys

    with _redis(data_dir) as redis:
        keys, in_use = ApiKeys(redis).list(), ApiKeys(redis).in_use()
    if not keys and in_use:
        console.print(
            "All keys are revoked: nobody is served until there is a new one. `ripple keys abolish` ends this."
        )
        return
    if not keys:
        console.print("There are no keys: the API needs none on loopback, and does not start elsewhere.")
        return
    table = Table("id", "name", "created (UTC)", "submissions", "active jobs")
    for key in keys:
        created = f"{key.created_at:%Y-%m-%d %H:%M}"
        table.add_row(
            key.id, escape(key.name), created, key.rate_limit or "default", str(key.max_active_jobs or "default")
        )
    console.print(table)


@keys_app.command()
@one_line_errors
def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, from `ripple keys list`.")], data_dir: DataDir = _DATA_DIR
) -> None:
    """Make a key worthless at once."""
    from ripple_core.cli.show import console
    from ripple_core.contract.keys import ApiKeys

    with _redis(data_dir) as redis:
        ApiKeys(redis).revoke(key_id)
    console.print(f"{key_id} is revoked.")


@keys_app.command()
@one_line_errors
def abolish(data_dir: DataDir = _DATA_DIR) -> None:
    """Revoke all keys and serve loopback without any again; jobs of all keys are then everybody's."""
    from ripple_core.cli.show import console
    from ripple_core.contract.keys import ApiKeys

    with _redis(data_dir) as redis:
        ApiKeys(redis).abolish()
    console.print("No key is needed on loopback any more; beyond it the API does not start.")


@keys_app.command()
@one_line_errors
def webhook_secret(
    key_id: Annotated[str | None, typer.Argument(help="Of this key; of callers without a key if left out.")] = None,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Print the secret that webhooks of a key's jobs are signed with."""
    from ripple_core.contract.keys import ApiKeys
    from ripple_core.contract.webhooks import webhook_secret as secret_of

    with _redis(data_dir) as redis:
        if key_id is not None:
            ApiKeys(redis).get(key_id)
        print(secret_of(redis, key_id))  # noqa: T201


@contextmanager
def _redis(data_dir: Path) -> Iterator[Redis]:
    from ripple_core.cli.stack import redis_url

    with redis_url(data_dir) as url:
        redis = Redis.from_url(url)
        try:
            yield redis
        except RedisError as error:
            raise RippleError(f"Redis cannot be used: {error}; see REDIS_URL.") from error
        finally:
            redis.close()
