"""The demo's widgets (gradio), round rfclip.demo.studio."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from rfclip.demo.hosts import guarded
from rfclip.demo.studio import BACKGROUNDS, MOST_BYTES, SAMPLES, Studio, methods, read_upload, sample, thumbnail
from rfclip.demo.viewer import frame, viewer
from rfclip.io.formats import SUFFIXES

ADDRESS = "127.0.0.1"
_KEEP = 3600  # seconds after which uploads are removed
_FIRST = next(iter(SAMPLES))


def build(studio: Studio, note: str = "") -> gr.Blocks:
    """Put the page together.

    Args:
        studio: does the work; what its model says of itself stands below the title.
        note: a further sentence there.
    """
    notes = "\n".join(filter(None, [studio.note, note]))
    with gr.Blocks(title="RF-CLIP", analytics_enabled=False, delete_cache=(_KEEP, _KEEP), fill_width=True) as blocks:
        gr.Markdown(f"# RF-CLIP: segment a picture with any words\n{notes}")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                picture, words = _picture_and_words()
                go = gr.Button("Segment", variant="primary", elem_id="go")
                with gr.Accordion("background and method", open=False):
                    background = gr.Radio([*BACKGROUNDS], value="auto", label="background", elem_id="background")
                    method = gr.Dropdown([*methods()], value="paper", label="method", elem_id="method")
            with gr.Column(scale=3), gr.Tabs():
                with gr.Tab("Segmentation"):
                    result = gr.HTML("<p>Nothing yet.</p>", elem_id="result", padding=False)
                with gr.Tab("Explain"):
                    why = gr.Button("Show what the method does with the picture", elem_id="why")
                    explanation = gr.HTML("<p>Nothing yet.</p>", elem_id="explanation", padding=False)

        @told
        def segment(*asked: Any) -> str:
            return frame(viewer(studio.segment(*asked)), "segmentation")

        @told
        def explain(*asked: Any) -> str:
            return frame(studio.explain(*asked), "explanation")

        asked = [picture, words, background, method]
        for trigger, action, panel in (
            (go.click, segment, result),
            (words.submit, segment, result),
            (why.click, explain, explanation),
        ):
            trigger(action, asked, [panel], api_visibility="private")
            trigger(None, js=f"() => asked('#{panel.elem_id}')", api_visibility="private")
        for change in (picture.change, words.change, background.change, method.change):
            change(None, js="() => changed()", api_visibility="private")
    return blocks


def _picture_and_words() -> tuple[gr.State, gr.Textbox]:
    """The picture (H, W, 3), own or a sample, and the words."""
    picture = gr.State(sample(_FIRST))
    preview = gr.Image(
        thumbnail(sample(_FIRST)), label=_FIRST, interactive=False, height=200, elem_id="preview", buttons=[]
    )
    upload = gr.File(label="your own", file_types=sorted(SUFFIXES), height=120, elem_id="upload")
    samples = gr.Radio([*SAMPLES], value=_FIRST, label="or a sample", elem_id="samples")
    words = gr.Textbox(
        SAMPLES[_FIRST][1],
        label="words",
        info="commas part classes, | parts the names of one; or voc21, cityscapes, ...",
        elem_id="words",
    )

    @told
    def uploaded(path: str | None) -> tuple[Any, ...]:
        image, caption = read_upload(path)
        return image, gr.Image(thumbnail(image), label=caption), None

    @told
    def chosen(name: str) -> tuple[Any, ...]:
        image = sample(name)
        return image, gr.Image(thumbnail(image), label=name), None, SAMPLES[name][1]

    upload.upload(uploaded, [upload], [picture, preview, samples], api_visibility="private")
    samples.input(chosen, [samples], [picture, preview, upload, words], api_visibility="private")
    return picture, words


def launch(blocks: gr.Blocks, port: int | None) -> None:
    """Serve a page to this machine alone, until interrupted; see rfclip.demo.hosts.

    Raises:
        OSError: the port is taken.
    """
    font = ("system-ui", "sans-serif")  # the default ones are fetched from elsewhere
    _, url, _ = blocks.launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        max_file_size=MOST_BYTES,
        allowed_paths=[],
        footer_links=[],
        show_error=True,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        head_paths=[Path(__file__).parent / "head.html"],
        app_kwargs={"lifespan": guarded},
        theme=gr.themes.Default(font=font, font_mono=("monospace",)),
    )
    print(f"Open {url} in a browser of this machine; Ctrl-C ends it.", flush=True)
    blocks.block_thread()


def told(action: Callable[..., Any]) -> Callable[..., Any]:
    """Show a ValueError on the page, as a message; everything else on the page stays as it was."""

    @wraps(action)
    def wrapped(*arguments: Any) -> Any:
        try:
            return action(*arguments)
        except ValueError as error:
            gr.Warning(html.escape(str(error)), title="Not done")
            return gr.skip()

    return wrapped
