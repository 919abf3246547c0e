"""Attribution: which pixels of an image an objective depends on."""
