"""Feature visualization: optimize an image, starting from noise, to activate a unit."""
