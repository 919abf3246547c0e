"""Names of other libraries, and what to call here instead."""

from __future__ import annotations

#: Functions of other libraries -> the call that does the same here.
FUNCTIONS = {
    "render_vis": 'fv.render(model, "channel:LAYER:5")',
    "explain": "fv.attribute(model, image, objective)",
    "image": "fv.param.Fourier(size=224)",
    "fft_image": "fv.param.Fourier(size=224)",
    "pixel_image": "fv.param.Pixel(size=224)",
    "cppn": "fv.param.Cppn(size=224)",
    "deepdream": "fv.dream(model, image)",
    "PGD": 'fv.attack(model, images, method="pgd", eps=4/255)',
    "FGSM": 'fv.attack(model, images, method="fgsm", eps=4/255)',
    "IntegratedGradients": 'fv.attribute(model, image, objective, method="integrated_gradients")',
    "GradCAM": 'fv.attribute(model, image, objective, method="grad_cam")',
}
#: Words for an option's value -> what it is called here.
WORDS = {
    "ig": "integrated_gradients",
    "gradient": "saliency",
    "vanilla_gradient": "saliency",
    "shap": "kernel_shap",
    "gradcam++": "grad_cam_plus_plus",
    "scorecam": "score_cam",
    "draft": "fast",
    "low": "fast",
    "high": "best",
    "inf": "linf",
}
#: Keywords of other libraries -> what to write here instead.
KEYWORDS = {
    "thresholds": "give steps=512, and a callback for images on the way",
    "param_f": "give param=fv.param.Fourier(size=224)",
    "preprocess": "the preprocessing belongs to the model: fv.Model(net, mean=…, std=…)",
    "show_image": "a result shows itself: result.show()",
    "target": "the target is an objective: fv.class_logit(285)",
    "epsilons": "eps is one radius: [fv.attack(model, images, eps=e) for e in epsilons]",
    "n_steps": "give steps=",
    "num_steps": "give steps=",
    "learning_rate": "give lr=",
    "image_size": "give size=",
    "verbose": "give progress=",
}
