"""Baseline MeanKK: key-key attention averaged over the layers (docs/METHOD.md section 9)."""

model = dict(method=dict(_delete_=True, type="MeanKK"))
