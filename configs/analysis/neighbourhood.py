"""Sweep of the window whose mean replaces a distractor's distraction dimensions."""

analysis = dict(
    title="Neighbourhood of the embedding redistribution",
    x_label="side of the window, patches",
    marked=3,
    rows=[
        dict(name=f"{side} x {side}", x=side, method=dict(type="RefocusVariant", neighbourhood=side))
        for side in (3, 5, 7, 9)
    ],
)
