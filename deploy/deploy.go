package deploy

import _ "embed"

//go:embed manifests/install.yaml
var install []byte

// Install returns the documents that an administrator applies: the chart as it is
// rendered without values.
func Install() []byte { return append([]byte(nil), install...) }

//go:embed helm/celery-hpa/files/crd.yaml
var customResources []byte

// CustomResources is the definition of the resource CeleryBroker.
func CustomResources() []byte { return append([]byte(nil), customResources...) }
