"""The generated messages and stubs of `trunkline.v1`, one module a proto file; `make generate` writes them."""
