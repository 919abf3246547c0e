"""DeepDream: strengthen in an image what a network sees in it."""
