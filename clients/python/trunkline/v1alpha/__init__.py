"""The generated messages and stubs of `trunkline.v1alpha`, which may still change; `make generate` writes them."""
