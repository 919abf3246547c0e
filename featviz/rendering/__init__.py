"""Feature visualization: optimize a picture from noise until it excites a unit."""
