"""PEARL: keys are turned into the queries' frame (docs/METHODS.md); its propagation is a refiner."""

model = dict(method=dict(_delete_=True, type="PEARL"))
