# %% [markdown]
# # Attacks
#
# An attack is the same ascent, from a photograph instead of from noise, within a ball around it that is
# too small to notice.

# %%
import featviz as fv

model = fv.load("efficientnet_lite0")
attacked = fv.attack(model, "cat.jpg", eps="2/255")
attacked

# %% [markdown]
# From the left: the photograph, the difference (amplified), the result, which the network takes for
# something else. By default the attack leads away from the predicted class; `to=` chooses another:

# %%
toaster = fv.attack(model, "cat.jpg", to=fv.class_logit("toaster"), eps="4/255", steps=40)
toaster

# %% [markdown]
# How little is enough? `eps="min"` searches for the smallest radius that succeeds, in units of
# 1/255 the following. The picture file has steps of 1, so that this one needs floats:

# %%
least = fv.attack(model, "cat.jpg", eps="min")
print(f"{least.eps.item() * 255:.2f} / 255 in L-infinity")

# %% [markdown]
# ## How much is it worth?
#
# Does another network fall for it? Does it survive a shift of a few pixels? An attack that has to
# survive random shifts while it is made (`transforms`, expectation over transformation) is more robust:

# %%
import torch

other = fv.load("efficientnet_lite1")
robust = fv.attack(
    model,
    "cat.jpg",
    to=fv.class_logit("toaster"),
    eps="8/255",
    steps=40,
    transforms="jitter:8,rotate:5",
    eot=2,
    early_exit=False,
)
target = model.classes.index("toaster")
for name, made in (("plain", toaster), ("robust", robust)):
    shifted = torch.cat([made.images.roll((dy, dx), (2, 3)) for dy in (-6, 5) for dx in (-6, 5)])
    with torch.no_grad():
        share = (model(shifted).argmax(1) == target).float().mean()
        transfers = (other(made.images).argmax(1) == target).item()
    print(f"{name}: {share:.0%} of shifted images are toasters; to Lite1 it is one: {transfers}")

# %% [markdown]
# The robust one survives every shift, the plain one none; another network falls for neither.
#
# Objectives inside the network can be attacked as well, and `fv.patch_attack` makes patches to print.
# Algorithms, norms, and comparisons with foolbox and torchattacks:
# [Adversarial examples](../attack.md).
