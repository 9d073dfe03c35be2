"""ProxyCLIP with the keys and values of all windows joined, GLA-CLIP (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="GLACLIP", vfm=dict(type="DINO", pretrained="auto")))
