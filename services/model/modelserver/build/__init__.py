"""Makes bundles: `python -m modelserver.build NAME`. Needs TensorFlow, as no other part does.

`assemble` goes through the steps; `recipe` says what a model brings to them, and each model has
a module with its own: `efficientnet_lite`. `checkpoint` reads weights, `quantise` makes the int8
artifact, `photographs` has the pictures for that and for the golden check, `labels` the names.
"""
