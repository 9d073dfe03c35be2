"""The paper's algorithm (docs/METHOD.md section 3), at all layers. Knobs: ../models/rfclip_vit-b16.py."""

model = dict(method=dict(_delete_=True, type="RefocusCLIP", distraction_dims="auto", tau=5.0, beta=0.7, layers="all"))
