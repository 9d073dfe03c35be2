"""ResCLIP: earlier attention mixed in, then a second pass with the labels of the first (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="ResCLIP"))
