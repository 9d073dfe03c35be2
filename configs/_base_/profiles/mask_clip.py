"""Baseline MaskCLIP: the values of the last block, no attention (docs/METHOD.md section 9)."""

model = dict(method=dict(_delete_=True, type="MaskCLIP"))
