"""Refocusing in the blocks before the last as loops over one image: a tower for the renderings of other methods."""

import numpy as np

from tests.support.loops import Tower, defocused, fiedler, mean_of, moderate, patch_block, phi, redistribute, softmax


class RefocusedTower(Tower):
    """A tower whose blocks before the last refocus; to be asked for one image's blocks in their order."""

    def __init__(self, vit, dims, tau, beta, layers):
        super().__init__(vit)
        self.dims, self.tau, self.beta, self.refocused = dims, tau, beta, layers

    def embed(self, image):
        x, self.grid = super().embed(image)
        self.distractors = self.locate(x)
        return x, self.grid

    def locate(self, x):
        return phi(x[1:], self.dims) > self.tau / x.shape[1]

    def ordinary(self, layer, x):
        if layer == self.layers - 1:
            return super().ordinary(layer, x)
        q, k, _ = self.qkv(layer, x)
        attention = softmax(q, k)
        if layer in self.refocused:
            defocus = defocused(fiedler(mean_of(patch_block(softmax(k, k)))), self.distractors)
            attention[:, 1:, 1:] = redistribute(patch_block(attention), self.distractors, defocus, self.beta)
        x = self.finish_block(layer, x, attention)
        self.distractors = self.locate(x)
        if layer in self.refocused:
            x = np.concatenate([x[:1], moderate(x[1:], self.distractors, self.dims, self.grid)])
        return x
