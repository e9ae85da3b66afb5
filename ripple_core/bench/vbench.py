"""Lays clips out as VBench (https://github.com/Vchitect/VBench) reads them.

VBench takes one folder a method, with `<prompt>-<index>.mp4` for index 0..4, and knows the dimensions of its own
prompts by these names. For other prompts its custom_input mode takes a JSON file from file names to prompts. That
file lies beside the folders, because VBench expects nothing but videos inside.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ripple_core.contract.request import OutputSettings
from ripple_core.generate import write_video

# File systems allow 255 bytes for a name.
_MAX_STEM_BYTES = 240


class VBenchExport:
    """Names the clips of a list of prompts, in which a prompt comes as often as it was given seeds."""

    def __init__(self, folder: Path, prompts: Iterable[str], fps: int) -> None:
        self._folder = folder
        self._fps = fps
        seen: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        for prompt in prompts:
            stem = prompt.replace("/", " ").encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
            self._names[f"{stem}-{seen[stem]}.mp4"] = prompt
            seen[stem] += 1

    def write_prompts(self) -> None:
        """Write `prompts.json`, the same for all methods."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._names, indent=2, ensure_ascii=False) + "\n"
        (self._folder / "prompts.json").write_text(text, encoding="utf-8")

    def write_clips(self, method: str, clips: Iterable[np.ndarray]) -> None:
        """Write one method's clips, in the order of the prompts; uint8 ``[num_frames, height, width, 3]`` each."""
        folder = self._folder / method
        folder.mkdir(parents=True, exist_ok=True)
        for name, frames in zip(self._names, clips, strict=True):
            write_video(frames, folder / name, self._fps, OutputSettings())
