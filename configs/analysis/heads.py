"""Other methods' last blocks, alone and behind refocused blocks; MeanKK and RefocusCLIP are the pair of the paper."""

_heads = dict(
    VanillaCLIP=dict(type="VanillaCLIP"),
    MaskCLIP=dict(type="MaskCLIP"),
    SCLIP=dict(type="SCLIP"),
    ClearCLIP=dict(type="ClearCLIP"),
    NACLIP=dict(type="NACLIP"),
    MeanKK=dict(type="MeanKK"),
    SCCLIP=dict(type="SCCLIP"),
    SFP=dict(type="SFP"),
    PEARL=dict(type="PEARL"),
    ResCLIP=dict(type="ResCLIP"),
)

analysis = dict(
    title="Heads, alone and refocused",
    note="Refocused: attention and embeddings are redistributed in all blocks before the last, which is the head's.",
    rows=[
        row
        for name, head in _heads.items()
        for row in (
            dict(name=name, method=head),
            dict(name=f"refocused {name}", method=dict(type="Refocused", head=head)),
        )
    ]
    + [dict(name="RefocusCLIP", method=dict(type="RefocusCLIP"))],
)
