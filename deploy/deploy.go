package deploy

import (
	"embed"
	"io/fs"
	"slices"
)

//go:embed manifests/*.yaml
var files embed.FS

//go:embed helm/celery-hpa/files/crd.yaml
var customResources []byte

// CustomResources is the definition of the resource CeleryBroker.
func CustomResources() []byte { return slices.Clone(customResources) }

// Manifests are the files of the folder manifests.
func Manifests() fs.FS {
	sub, err := fs.Sub(files, "manifests")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
