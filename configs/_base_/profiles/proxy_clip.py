"""ProxyCLIP: DINO's affinities stand for CLIP's attention (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="ProxyCLIP", vfm=dict(type="DINO", pretrained="auto")))
