"""Baseline VanillaCLIP: the unchanged last block (docs/METHOD.md section 9)."""

model = dict(method=dict(_delete_=True, type="VanillaCLIP"))
