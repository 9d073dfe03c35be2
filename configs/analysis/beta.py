"""Sweep of beta, the share of the distractors' attention that is moved."""

analysis = dict(
    title="Share beta",
    x_label="beta",
    marked=0.7,
    rows=[
        dict(name=f"beta {value}", x=value, method=dict(type="RefocusCLIP", beta=value))
        for value in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    ],
)
