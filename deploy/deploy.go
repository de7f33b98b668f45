package deploy

import _ "embed"

//go:embed manifests/install.yaml
var install []byte

// Install returns the documents that an administrator applies: the chart as it is
// rendered without values.
func Install() []byte { return append([]byte(nil), install...) }
