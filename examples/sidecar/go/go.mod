module github.com/trunkline/trunkline/examples/sidecar/go

go 1.25
