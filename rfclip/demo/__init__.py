"""A page on this machine in which pictures are segmented with any words; started by `rfclip demo`."""
