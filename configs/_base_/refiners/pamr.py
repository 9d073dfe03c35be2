"""Pixel-adaptive mask refinement of the logits (docs/METHOD.md section 5); --refiner pamr, or --pamr, adds it."""

model = dict(
    refiner=dict(
        type="PAMR",
        num_iter=10,  # iterations, at least 0
        dilations=(8, 16),
    )
)  # distances of the 8 neighbours, pixels of the original image
