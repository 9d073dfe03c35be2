"""SFP, first version, which has templates of its own (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="SFP", version="v1"))
