"""Baseline NACLIP: key-key attention with a Gaussian around each patch (docs/METHOD.md section 9)."""

model = dict(method=dict(_delete_=True, type="NACLIP"))
