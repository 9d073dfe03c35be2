"""Sweep of the distraction threshold tau, in units of 1/d."""

analysis = dict(
    title="Threshold tau",
    x_label="tau, in units of 1/d",
    marked=5,
    rows=[
        dict(name=f"tau {value}", x=value, method=dict(type="RefocusCLIP", tau=value))
        for value in (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0)
    ],
)
