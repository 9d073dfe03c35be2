"""Baseline ClearCLIP: query-query attention, no residual, no MLP (docs/METHOD.md section 9)."""

model = dict(method=dict(_delete_=True, type="ClearCLIP"))
