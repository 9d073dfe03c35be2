"""LPOSS: scores propagated over the patches of all windows (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="LPOSS", vfm=dict(type="DINO", pretrained="auto")))
