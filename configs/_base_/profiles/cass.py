"""CASS: DINO's attention graphs, matched head by head, mixed into CLIP's (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="CASS", vfm=dict(type="DINO", pretrained="auto")))
