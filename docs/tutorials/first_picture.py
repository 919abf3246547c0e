# %% [markdown]
# # A first picture
#
# What does a trained network look for? We choose one of its units, start from noise, and change the
# image until the unit responds strongly. Everything here runs in a minute on two CPU cores.

# %%
import featviz as fv

model = fv.load("efficientnet_lite0")
model.layers()[-6:]

# %% [markdown]
# `model.layers()` lists everything that runs, with the shape of its output and its number of units;
# above are the last six. The network classifies photographs into the thousand classes of ImageNet. A
# class is an objective, too, and the easiest to judge, because we know what it should look like:

# %%
volcano = fv.render(model, 'class:"volcano"')
volcano

# %% [markdown]
# It is a volcano as the network knows volcanoes: slopes, a crater and lava, more of each than a photograph has.
# The score is the objective's value, here the logit. It should rise and then level off; if it still
# climbs at the end, more `steps` pay. In the first two fifths the network sees the image at half its size, where
# scores are not comparable to the later ones:

# %%
volcano.plot()

# %% [markdown]
# Would a photograph score as high? Rarely: the image has been optimized for nothing else. So the
# score says little by itself. Whether *other* networks see a volcano says more:

# %%
judge = fv.load("efficientnet_lite2")
probabilities = judge(volcano.images).softmax(1)[0]
for p, c in zip(*probabilities.topk(3), strict=True):
    print(f"{judge.classes[c]}: {p:.2f}")

# %% [markdown]
# Inside the network there are no labels. A channel in an earlier layer, three times, from three starting
# points (seeds). What the three have in common belongs to the channel, what differs to chance. For a
# look, `quality="fast"` is enough, 64 steps instead of 256:

# %%
channel = fv.render(model, fv.channel("_blocks.4", 10), seed=[0, 1, 2], quality="fast")
channel

# %% [markdown]
# And what lowers it, by a minus sign: the same ropes, the other way. Objectives can be added,
# subtracted and multiplied:

# %%
fv.render(model, -fv.channel("_blocks.4", 10), quality="fast")

# %% [markdown]
# Save an image, and the file contains how it was made: `featviz render --from
# channel.png` makes it again. The same settings give the same image, alone or with others:

# %%
channel.save("channel.png")
again = fv.render(model, fv.channel("_blocks.4", 10), seed=2, quality="fast")
bool((again.images == channel[2].images).all())

# %% [markdown]
# In a notebook, `callbacks=[fv.callbacks.Live()]` shows the image while it is optimized.
#
# Next: [a whole layer](whole_layer.ipynb), [your own network](own_network.ipynb), or
# [how to read these pictures](../reading_pictures.md), and when not to believe them.
