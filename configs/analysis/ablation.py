"""The steps of the method one by one. Row names are those of rfclip/data/published.json."""

analysis = dict(
    title="Ablation",
    published="ablation",
    note="The rows' definitions are this project's own (docs/METHOD.md section 10): the paper gives none.",
    rows=[
        dict(name="layer-mean key-key attention", method=dict(type="MeanKK")),
        dict(
            name="+ mean filter on random tokens",
            method=dict(type="FilteredMeanKK", filter="mean", tokens="random"),
        ),
        dict(name="+ mean filter on distractors", method=dict(type="FilteredMeanKK", filter="mean")),
        dict(
            name="attention redistribution",
            method=dict(type="RefocusVariant", attention=True, embedding=False, target="others"),
        ),
        dict(name="embedding redistribution", method=dict(type="RefocusVariant", attention=False, embedding=True)),
        dict(
            name="attention and embedding redistribution",
            method=dict(type="RefocusVariant", attention=True, embedding=True, target="others"),
        ),
        dict(name="both, and defocus localization", method=dict(type="RefocusCLIP")),
    ],
)
