"""HTML for the results that a notebook shows: plain text goes in, escaped and in the theme's own colours it comes out.

It imports nothing of the package, so that every layer may use it.
"""

import base64
from collections.abc import Collection, Mapping
from html import escape

# A notebook is read and saved whole, with the text that stands for its videos, a third larger than they are.
MAX_VIDEO_CHARACTERS = 50_000_000

CHANNEL_NOTE = (
    "Mode channel counts the multiplications that the published method needs; run on dense matrix hardware it takes no "
    "less time."
)

_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
_LEAST_VIDEO_WIDTH = 320
_CHART_HEIGHT, _MAX_CHART_WIDTH, _MAX_BAR_WIDTH = 48.0, 560.0, 14.0


def outcome(savings: float, denoise_s: float | None = None, dense_estimate_s: float | None = None) -> str:
    """What reuse came to, in plain words.

    Args:
        savings: share of the attention FLOPs; below 0 where deciding cost more than was saved.
        denoise_s: seconds that denoising took, if that is known.
        dense_estimate_s: what it would have taken without reuse, if anything says so.
    """
    if savings < 0:
        words = f"{_share(-savings, 0)} more attention work than without reuse"
    else:
        words = f"{_share(savings, 0)} of attention work saved"
    if denoise_s is not None:
        words += f"; denoising took {seconds(denoise_s)}"
        if dense_estimate_s is not None:
            instead = "instead of about" if denoise_s < dense_estimate_s else "where dense would have taken about"
            words += f" {instead} {seconds(dense_estimate_s)}"
    return f"{words}."


def seconds(duration: float) -> str:
    """In two digits, or whole ones."""
    return f"{duration:.0f}{_NO_BREAK_SPACE}s" if duration >= 10 else f"{duration:.2g}{_NO_BREAK_SPACE}s"


def gigabytes(size: int) -> str:
    """In three digits."""
    return f"{size / 1e9:.3g}{_NO_BREAK_SPACE}GB"


def page(*parts: str) -> str:
    """Several pieces of HTML, one below the other."""
    return f'<div style="color: inherit; background: none">{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """Text."""
    return f'<p style="margin: 0.5em 0">{escape(text)}</p>'


def table(rows: Mapping[str, str]) -> str:
    """Names and values."""
    cell = 'style="text-align: left; vertical-align: top; max-width: 40em; overflow-wrap: anywhere"'
    lines = "".join(
        f"<tr><th scope='row' {cell}>{escape(name)}</th><td {cell}>{escape(text)}</td></tr>"
        for name, text in rows.items()
    )
    return f'<table style="margin: 0.5em 0">{lines}</table>'


def details(summary: str, content: str) -> str:
    """HTML that opens with a click on the text before it."""
    return f'<details style="margin: 0.5em 0"><summary>{escape(summary)}</summary>{content}</details>'


def video(mp4: bytes, width: int, height: int, if_too_large: str) -> str:
    """A player with the whole file in it.

    Args:
        mp4: the file.
        width: pixels.
        height: pixels.
        if_too_large: said in its place where its text would have more than MAX_VIDEO_CHARACTERS.
    """
    if 4 * len(mp4) > 3 * MAX_VIDEO_CHARACTERS:
        return paragraph(
            f"The video has {len(mp4) / 1e6:.0f}{_NO_BREAK_SPACE}MB, too much to keep in a notebook. {if_too_large}"
        )
    # Controls hide what is smaller.
    shown = max(width, _LEAST_VIDEO_WIDTH)
    source = f"data:video/mp4;base64,{base64.b64encode(mp4).decode('ascii')}"
    return (
        f'<video controls loop muted playsinline width="{shown}" height="{height * shown // width}" '
        f'style="max-width: 100%; height: auto" src="{source}"></video>'
    )


def attention(
    *,
    savings: float,
    score_savings: float,
    mode: str,
    aggressiveness: float,
    backend: str | None,
    dense_steps: Collection[int],
    fallbacks: Mapping[str, int],
    by_step: Mapping[int, float],
    by_layer: Mapping[int, float],
) -> str:
    """A table, and bars for steps and layers; shares from 0 to 1, and -1 is the step that nobody knew."""
    rows = {
        "saved of all attention": _share(savings),
        "saved of QK^T": _share(score_savings),
        "mode": f"{mode}, computed by {backend}" if backend else mode,
        "aggressiveness": f"{aggressiveness:g}",
        "dense steps": f"{len(dense_steps)} of {len(by_step)}",
        "fallbacks": ", ".join(f"{reason}: {calls}" for reason, calls in fallbacks.items()) or "none",
    }
    note = paragraph(CHANNEL_NOTE) if mode == "channel" else ""
    return note + table(rows) + bars("denoising step", by_step, dense_steps) + bars("layer", by_layer)


def bars(kind: str, savings: Mapping[int, float], dense: Collection[int] = ()) -> str:
    """A bar for each, in a frame that is 100 % high; pointing at one tells its number.

    Args:
        kind: what they are.
        savings: by number, up to 1; below 0 the bar hangs down.
        dense: those that ran without reuse.
    """
    if not savings:
        return ""
    span = 1 - min(0.0, *savings.values())
    width = min(_MAX_CHART_WIDTH / len(savings), _MAX_BAR_WIDTH)

    def bar(place: int, number: int, share: float) -> str:
        top, height = (1 - max(share, 0)) / span * _CHART_HEIGHT, abs(share) / span * _CHART_HEIGHT
        name = f"{kind} {number + 1}" if number >= 0 else f"{kind} unknown"
        text = f"{name}: {_share(share)} saved{', dense' if number in dense else ''}"
        # The invisible part takes the pointer where the bar is small.
        return (
            f"<g><title>{escape(text)}</title>"
            f'<rect x="{place * width:.1f}" y="0" width="{width:.1f}" height="{_CHART_HEIGHT:.1f}" fill-opacity="0"/>'
            f'<rect class="saved" x="{(place + 0.1) * width:.1f}" y="{top:.2f}" width="{0.8 * width:.1f}" '
            f'height="{height:.2f}" fill-opacity="0.65"/></g>'
        )

    whole, zero = len(savings) * width, _CHART_HEIGHT / span
    shapes = "".join(bar(place, number, share) for place, (number, share) in enumerate(savings.items()))
    least, most = min(savings.values()), max(savings.values())
    title = f"Saved in each {kind}: {_share(least)} to {_share(most)}"
    return (
        f'<div style="margin: 0.5em 0"><div>{escape(title)}</div>'
        f'<svg role="img" aria-label="{escape(title)}" width="{whole:.0f}" height="{_CHART_HEIGHT:.0f}" '
        f'viewBox="0 0 {whole:.1f} {_CHART_HEIGHT:.1f}" fill="currentColor" style="max-width: 100%; overflow: visible">'
        f'<path d="M0 0H{whole:.1f}" stroke="currentColor" stroke-opacity="0.4" stroke-dasharray="2 3"/>'
        f'<path d="M0 {zero:.2f}H{whole:.1f}" stroke="currentColor" stroke-opacity="0.6"/>{shapes}</svg></div>'
    )


def _share(part: float, digits: int = 1) -> str:
    return f"{100 * part:.{digits}f}{_NO_BREAK_SPACE}%"
