"""Who receives the budget that is taken from the distractors."""

analysis = dict(
    title="Receivers of the budget",
    note="Definitions: docs/METHOD.md section 10. The class token is no part of the last block's dense attention.",
    rows=[
        dict(name="defocused patches", method=dict(type="RefocusVariant", target="defocused")),
        dict(name="all other patches", method=dict(type="RefocusVariant", target="others")),
        dict(name="class token", method=dict(type="RefocusVariant", target="class")),
    ],
)
