"""Distractors suppressed instead of moderated. Row names are those of rfclip/data/published.json."""

analysis = dict(
    title="Suppression of distractors",
    published="suppression",
    note="The filters' definitions are this project's own (docs/METHOD.md section 10): the paper gives none.",
    rows=[
        dict(name="none", method=dict(type="FilteredMeanKK", filter="none")),
        dict(name="-inf mask", method=dict(type="FilteredMeanKK", filter="-inf")),
        dict(name="low-pass filter", method=dict(type="FilteredMeanKK", filter="low-pass")),
        dict(name="mean filter", method=dict(type="FilteredMeanKK", filter="mean")),
        dict(name="median filter", method=dict(type="FilteredMeanKK", filter="median")),
    ],
)
