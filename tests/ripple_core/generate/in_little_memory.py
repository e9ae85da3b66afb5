"""Run by `test_memory`: a video that is too large for what the process may take, between two that are not."""

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from ripple_core.contract.errors import OutOfMemory
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, OutputSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import generate_video, load_model


def main(room_bytes: int) -> dict[str, Any]:
    model = load_model(find_model("builtin"))

    def video(size: int, num_frames: int) -> str:
        request = GenerateRequest(
            prompt="a red circle",
            seed=1,
            width=size,
            height=size,
            num_frames=num_frames,
            num_inference_steps=1,
            guidance_scale=1.0,
            output=OutputSettings(format="zip"),
        )
        with tempfile.TemporaryDirectory() as folder:
            return generate_video(model, resolve(request, model.spec), Path(folder)).output.sha256

    first = video(64, 9)
    video(96, 9)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    in_use = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize:"))
    resource.setrlimit(resource.RLIMIT_AS, (in_use + room_bytes, resource.RLIM_INFINITY))
    try:
        video(256, 65)
    except OutOfMemory as error:
        return {"message": str(error), "code": error.code, "same": video(64, 9) == first}
    return {}


print(json.dumps(main(int(sys.argv[1]))))  # noqa: T201
