"""Feature visualization: optimize an image from noise until it excites a unit."""
