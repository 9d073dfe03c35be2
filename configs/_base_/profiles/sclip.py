"""Baseline SCLIP: query-query plus key-key attention (docs/METHOD.md section 9)."""

model = dict(method=dict(_delete_=True, type="SCLIP"))
