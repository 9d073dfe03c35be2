"""PEARL's propagation of the logits (docs/METHODS.md, TextLaplacian); --refiner text_laplacian adds it."""

model = dict(
    refiner=dict(
        type="TextLaplacian",
        # cells that a side of the original image is pooled to, about; published: 80, Cityscapes 224
        grid=80,
        # steps of the solver, at least 0; they do not converge
        iterations=25,
        # above 0: of the softmax over names that are like a name
        temperature=0.5,
        # at least 0: what a name counts for itself beside it
        self_weight=10.0,
        # at least 0: how fast neighbours part where the grey value changes
        edge_sharpness=5.0,
        # 0 to 1: the least that the best probability of a pixel counts
        confidence_floor=0.05,
    )
)
