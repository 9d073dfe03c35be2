"""SFP, second version: salient tokens are repaired before the last block (docs/METHODS.md)."""

model = dict(method=dict(_delete_=True, type="SFP", version="v2"))
