"""SC-CLIP: outliers are repaired, then tokens that are alike share features (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="SCCLIP"))
