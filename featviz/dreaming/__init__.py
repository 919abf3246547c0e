"""DeepDream: strengthen in a picture what a network sees in it."""
