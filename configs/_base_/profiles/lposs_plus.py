"""LPOSS+: LPOSS, then the same propagation over pixels (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="LPOSS", vfm=dict(type="DINO", pretrained="auto"), plus=True))
