"""RF-CLIP on CLIP ViT-B/16: every knob of the method. Section numbers are those of docs/METHOD.md.

A benchmark config adds its vocabulary, its prior and its threshold; a profile replaces the method.
"""

model = dict(
    type="RFCLIP",
    clip=dict(
        # an open_clip name, a model-config JSON, 'auto' (read from a file in OpenAI's layout), or 'tiny'
        model="ViT-B-16",
        # an open_clip tag, or a local weights file
        pretrained="openai",
        # the arithmetic: 'fp32', 'bf16' or 'fp16'; weights keep their precision
        precision="fp32",
    ),
    method=dict(
        # section 3; the other methods: ../profiles/
        type="RefocusCLIP",
        # channels that mark a distraction token, a list within 0 to d - 1; 'auto': known, or calibrated
        distraction_dims="auto",
        # tau, in units of 1/d, above 0: a token whose phi exceeds it is a distractor; paper: 5
        tau=5.0,
        # beta, 0 to 1: share of the distractors' attention that is handed on; paper: 0.7
        beta=0.7,
        # l, the blocks that redistribute: 'all' (paper), 'last', or a list of 0-based indices
        layers="all",
    ),
    # prompts averaged per name: 'imagenet80' or a list of strings with '{}' (section 5)
    templates="imagenet80",
    # object-presence prior (section 5), or None; these are PASCAL VOC's, each benchmark has its own
    prior=dict(
        # g, 0 to 1: weight of the image-level similarity in the logits
        image_weight=0.1,
        # m, 0 to 1: how far the likeliest name of a cluster moves towards the image
        mean_vector_weight=0.03,
        # cosine distance, 0 to 2: names up to here share a cluster
        cluster_threshold=0.10,
        # where the image-level similarity comes from: 'image', or 'window' (Cityscapes)
        scope="image",
        # how near clusters of names are: 'complete', their two farthest names, or 'ward' (CASS)
        linkage="complete",
    ),
    # refiner=dict(...) as in a file of ../refiners; left out: none
    # factor on the cosines before the softmax, above 0 (section 5)
    logit_scale=40.0,
    # how the logits of a class's names become its own: 'max' (its best name), 'mean' or 'logsumexp' (section 5)
    alias_aggregation="max",
    # 0 to 1: classes with no more of what is not background get no pixel (needs background_index 0), or None
    area_thd=None,
    # 0 to 1: a pixel whose winning probability is lower becomes background (needs a background_index)
    prob_thd=0.0,
    # index of the background class, or None in a vocabulary without one
    background_index=None,
    # sides that are no multiple of the patch: 'crop' (published protocol), 'pad' (section 4.7), or 'pad_black'
    patch_fit="crop",
    # keep the class probabilities (C, H0, W0) beside the labels of each image
    keep_seg_logits=False,
    test_cfg=dict(
        # 'slide', or 'whole': the whole image at once
        mode="slide",
        # side of a window, pixels
        crop_size=224,
        # step from window to window, pixels
        stride=112,
        # windows encoded together: memory against speed, the result does not change
        window_batch=8,
        # pad_multiple=..., pixels: zeros round each window after normalisation, to a multiple per side; left out: none
    ),
)
