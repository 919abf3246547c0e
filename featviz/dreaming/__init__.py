"""DeepDream: enhance what a network sees in an image."""
