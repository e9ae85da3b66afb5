"""One request to frames, files and metrics on one pipeline, without any queue or server."""

from ripple_core.generate.batch import VideoJob, generate_videos
from ripple_core.generate.encode import write_video
from ripple_core.generate.from_prompt import text_to_video
from ripple_core.generate.load import LoadedModel, load_model
from ripple_core.generate.run import AppliedAttention, GeneratedFrames, generate_frames
from ripple_core.generate.video import generate_video

__all__ = [
    "AppliedAttention",
    "GeneratedFrames",
    "LoadedModel",
    "VideoJob",
    "generate_frames",
    "generate_video",
    "generate_videos",
    "load_model",
    "text_to_video",
    "write_video",
]
