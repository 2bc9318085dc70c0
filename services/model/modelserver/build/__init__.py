"""Makes bundles: `python -m modelserver.build NAME`. Needs TensorFlow, as no other part does.

`assemble` goes through the steps; `recipe` says what a model brings to them, and there is a module
for each kind: `efficientnet_lite`, and `keras_models` for the `applications` of Keras and for files
of one's own. `graph` makes one frozen graph of any of them, `quantise` the .tflite files of it;
`checkpoint` reads weights, `photographs` has the pictures to calibrate and check with, `labels` the
names.
"""
