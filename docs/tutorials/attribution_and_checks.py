# %% [markdown]
# # Which pixels, and is it true?
#
# An attribution says which pixels of an image an objective depends on. There are dozens of methods,
# and they disagree; this page asks several, and then measures them.

# %%
import featviz as fv

model = fv.load("efficientnet_lite0")
found = fv.attribute(model, "cat.jpg")
found

# %% [markdown]
# Without an objective, the predicted class is explained. From the left: the image as the network saw
# it, the heat, and both. Which method was that, and which class?

# %%
print(found.method, found.settings["layer"])
print(found.objectives, model.classes[int(found.objectives[0].split(":")[1])])

# %% [markdown]
# Any objective can be explained. Why an Egyptian cat rather than a tabby? Red speaks for the
# difference, blue against it. By layer-wise relevance propagation it is the eyes; hiding them says the
# opposite, for a [reason](../attribution.md):

# %%
difference = fv.class_logit("Egyptian cat") - fv.class_logit("tabby")
fv.attribute(model, "cat.jpg", difference, method="lrp")

# %% [markdown]
# ## Is the map better than chance?
#
# If a map is right, deleting its hottest cells lowers the score quickly, and inserting them raises it
# quickly: a small deletion area and a large insertion area, compared with cells in random orders. Three
# maps that all look convincing:

# %%
for method in ("grad_cam", "lrp", "saliency"):
    curves = fv.attribute(model, "cat.jpg", "class:285", method=method).curves(model)
    deletion, insertion = curves.deletion_auc.item(), curves.insertion_auc.item()
    print(
        f"{method:9} deletion {deletion:.2f}  insertion {insertion:.2f}  "
        f"better than random orders: {curves.beats_random.item()}"
    )

# %% [markdown]
# None of them is: the cat fills the picture, so that cells in any order delete it about as fast. It takes
# a measure to notice. On photographs with more than a face most methods do better, as the tables of
# [Attribution](../attribution.md) show.
#
# ## Does it depend on what the network has learned?
#
# A map that stays the same in a network with random weights is a picture of the image, not of what the
# network has learned. Its correlation with the map of the trained network should be low:

# %%
import torch

shuffled = fv.load("efficientnet_lite0", weights=None)
for method in ("grad_cam", "guided_backprop"):
    maps = [
        fv.attribute(m, "cat.jpg", "class:285", method=method).heat.abs().flatten()
        for m in (model, shuffled)
    ]
    print(f"{method}: correlation {torch.corrcoef(torch.stack(maps))[0, 1]:.2f}")

# %% [markdown]
# Both change, as they should. Methods that do not, on networks shuffled layer by layer, are on the
# same page.
#
# ## Checking a rendered image
#
# `fv.check` does as much for images made by `fv.render`: it renders them again from other seeds and in
# a network with shuffled weights, and asks other networks what they see. What could not be measured,
# here for want of a folder of photographs, is said:

# %%
checks = fv.check(model, "class:285", quality="fast", seeds=2)
checks

# %%
print(checks[0])

# %% [markdown]
# What each measure can and cannot say: [Attribution](../attribution.md), [Checks](../check.md).
