"""The commands of `ripple`."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from ripple_core.cli.bench import bench_app
from ripple_core.cli.bench_batch import batch
from ripple_core.cli.bench_gpu import step, tune
from ripple_core.cli.bench_queue import queue as bench_queue
from ripple_core.cli.bench_serve import serve as bench_serve
from ripple_core.cli.calibrate import calibrate
from ripple_core.cli.doctor import doctor
from ripple_core.cli.errors import one_line_errors
from ripple_core.cli.gc import gc
from ripple_core.cli.keys import keys_app
from ripple_core.contract.errors import RippleError
from ripple_core.contract.request import DEFAULT_AGGRESSIVENESS, ReuseMode

app = typer.Typer(
    help="Text-to-video generation with TimeRipple attention reuse.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bench_app.command("queue")(bench_queue)
bench_app.command("serve")(bench_serve)
bench_app.command()(batch)
bench_app.command()(step)
bench_app.command()(tune)
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.command()(calibrate)
app.command()(doctor)
app.command()(gc)

_DEMO_PROMPT = "a red circle moving left on a dark background"
_DEFAULT_SERVER = "http://127.0.0.1:8000"

Host = Annotated[str, typer.Option(envvar="RIPPLE_HOST", help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(envvar="RIPPLE_PORT", min=1, max=65535, help="Port of the API.")]
DataDir = Annotated[Path, typer.Option(envvar="RIPPLE_DATA_DIR", help="Videos and the embedded Redis's data.")]
Model = Annotated[
    str, typer.Option(envvar="RIPPLE_MODEL", help="builtin, a name of `ripple models`, or a pipeline folder.")
]
AllowAnonymous = Annotated[
    bool,
    typer.Option("--allow-anonymous", envvar="RIPPLE_ALLOW_ANONYMOUS", help="Serve other machines without API keys."),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="MP4 to write.")]
Aggressiveness = Annotated[
    float, typer.Option("-a", "--aggressiveness", help="0 = untouched stock pipeline .. 1 = most reuse.")
]


@app.command()
@one_line_errors
def up(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: DataDir = Path("ripple-data"),
    model: Model = "builtin",
    allow_anonymous: AllowAnonymous = False,
) -> None:
    """Run API, worker and Redis together until Ctrl-C.

    REDIS_URL names a Redis to use instead of the embedded one.
    """
    from ripple_core.cli.show import console
    from ripple_core.cli.stack import running_stack

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with running_stack(host, port, data_dir, model, allow_anonymous=allow_anonymous) as stack:
            with console.status("starting"):
                stack.wait_until_ready()
            console.print(
                f"TimeRipple is ready at {stack.url}: open it in a browser (API documentation: {stack.url}/docs). "
                "Ctrl-C stops it."
            )
            while True:
                stack.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopped")


@app.command()
@one_line_errors
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: DataDir = Path("ripple-data"),
    model: Model = "builtin",
    allow_anonymous: AllowAnonymous = False,
) -> None:
    """Run the API alone, on the Redis in REDIS_URL or the data folder's embedded one."""
    settings = {"RIPPLE_HOST": host, "RIPPLE_PORT": str(port), "RIPPLE_MODEL": model}
    _run_alone("server", data_dir, settings | {"RIPPLE_ALLOW_ANONYMOUS": str(allow_anonymous)})


@app.command()
@one_line_errors
def worker(
    data_dir: DataDir = Path("ripple-data"),
    model: Model = "builtin",
    device: Annotated[
        list[str] | None,
        typer.Option(envvar="RIPPLE_DEVICE", help="auto, cpu, cuda or cuda:N, once a worker; all for every GPU."),
    ] = None,
) -> None:
    """Run workers alone, one for each device, on the Redis in REDIS_URL or the data folder's embedded one."""
    from ripple_core.cli.workers import run_workers

    sys.exit(run_workers(data_dir, {"RIPPLE_MODEL": model}, device or ["auto"]))


@app.command()
@one_line_errors
def generate(
    prompt: Annotated[str, typer.Argument(help="What the video shows.")],
    output: Output = Path("out.mp4"),
    aggressiveness: Annotated[
        float | None,
        typer.Option("-a", "--aggressiveness", help="0 = stock pipeline .. 1 = most reuse; the model's own."),
    ] = None,
    mode: Annotated[ReuseMode | None, typer.Option(help="Form of reuse; the model's own.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What it must not show.")] = "",
    seed: Annotated[int | None, typer.Option(help="Same seed, same video; drawn if omitted.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames of the video.")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames per second.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance; 1 turns it off.")] = None,
    server: Annotated[str, typer.Option(envvar="RIPPLE_SERVER", help="URL of a running server.")] = _DEFAULT_SERVER,
    api_key: Annotated[str | None, typer.Option(envvar="RIPPLE_API_KEY", help="Where the server needs one.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Run the pipeline in this process, without a server.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="One of the server's, its first by default; with --local as of `ripple up`, builtin by default."
        ),
    ] = None,
) -> None:
    """Generate one video, on a server or (--local) right here."""
    from ripple_core.cli.local import generate_locally
    from ripple_core.cli.show import console, print_metrics, progress_bar
    from ripple_core.contract.request import GenerateRequest, ReuseSettings

    # What is not given is left to the model.
    reuse = {"aggressiveness": aggressiveness, "mode": mode}
    request = GenerateRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        model=None if local else model,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=fps,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        reuse=ReuseSettings.model_validate({name: value for name, value in reuse.items() if value is not None}),
    )
    _check_output(output)
    with progress_bar() as on_progress:
        if local:
            metrics = generate_locally(model or "builtin", request, output, on_progress)
        else:
            from ripple_core.cli.client import generate_on_server

            metrics = generate_on_server(server, request, output, on_progress, api_key)
    print_metrics(metrics)
    console.print(f"wrote {output}")


@app.command()
@one_line_errors
def models() -> None:
    """List the models that --model knows by name; any folder with a Wan pipeline works too."""
    from rich.table import Table

    from ripple_core.cli.show import console
    from ripple_core.contract.models import CATALOGUE, find_model

    table = Table("model", "size", "frames", "steps", "description")
    # A name that is broken over two lines cannot be copied.
    table.columns[0].no_wrap = True
    for spec in (find_model("builtin"), *CATALOGUE.values()):
        defaults = spec.defaults
        size = f"{defaults.width}x{defaults.height}"
        table.add_row(spec.id, size, str(defaults.num_frames), str(defaults.num_inference_steps), spec.description)
    console.print(table)


@app.command()
@one_line_errors
def demo(
    output: Output = Path("out.mp4"),
    prompt: Annotated[str, typer.Option(help="What the video shows.")] = _DEMO_PROMPT,
    aggressiveness: Aggressiveness = DEFAULT_AGGRESSIVENESS,
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 1,
) -> None:
    """Start everything on embedded defaults, generate one video through the API, show it all, stop everything."""
    from ripple_core.cli.client import generate_on_server
    from ripple_core.cli.show import console, print_metrics, progress_bar
    from ripple_core.cli.stack import free_port, running_stack
    from ripple_core.contract.request import GenerateRequest, ReuseSettings

    signal.signal(signal.SIGTERM, _interrupt)
    request = GenerateRequest(prompt=prompt, seed=seed, reuse=ReuseSettings(aggressiveness=aggressiveness))
    _check_output(output)
    with (
        tempfile.TemporaryDirectory(prefix="timeripple-") as data_dir,
        running_stack("127.0.0.1", free_port(), Path(data_dir), "builtin", log_level="WARNING") as stack,
    ):
        with console.status("starting Redis, API and worker"):
            stack.wait_until_ready()
        console.print(f'POST {stack.url}/generate  "{prompt}"')
        with progress_bar() as on_progress:
            metrics = generate_on_server(stack.url, request, output, on_progress)
        print_metrics(metrics)
        console.print(f"wrote {output}")


def _run_alone(module: str, data_dir: Path, settings: dict[str, str]) -> None:
    from ripple_core.cli.stack import redis_url, start_module

    signal.signal(signal.SIGTERM, _interrupt)
    with redis_url(data_dir) as url:
        environment = os.environ | settings | {"REDIS_URL": url, "RIPPLE_DATA_DIR": str(data_dir)}
        process = start_module(module, environment)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            code = process.wait()
    sys.exit(code)


def _check_output(output: Path) -> None:
    if output.suffix != ".mp4":
        raise RippleError(f"--output is {output}; it must end in .mp4")
    if not output.absolute().parent.is_dir():
        raise RippleError(f"--output: the folder {output.absolute().parent} does not exist")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
