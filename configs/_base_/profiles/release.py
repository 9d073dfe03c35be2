"""The algorithm of the released code (docs/METHOD.md section 4), which gave the published numbers."""

model = dict(
    method=dict(
        _delete_=True,
        type="RefocusCLIPRelease",
        distraction_dims="auto",  # as in the paper profile
        tau=5.0,  # as in the paper profile
        alpha=0.4,  # weight of the 3 x 3 mean in a smoothed token, 0 to 1
        similarity_threshold=0.4,  # cosines between patches of the guide below this count as 0, -1 to 1
    )
)
