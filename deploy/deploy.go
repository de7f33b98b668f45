package deploy

import (
	"embed"
	"io/fs"
)

//go:embed manifests/*.yaml
var files embed.FS

// Manifests are the files of the folder manifests.
func Manifests() fs.FS {
	sub, err := fs.Sub(files, "manifests")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
