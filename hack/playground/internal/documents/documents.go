package documents

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/deploy"
)

// Of returns those of the manifests that are of some kinds, in their order.
func Of(kinds ...string) ([]byte, error) {
	var kept bytes.Buffer
	err := fs.WalkDir(deploy.Manifests(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ok, err := fs.Stat(deploy.Manifests(), path); err != nil || ok.IsDir() {
			return err
		}
		text, err := fs.ReadFile(deploy.Manifests(), path)
		if err != nil {
			return err
		}
		return keepKinds(&kept, text, kinds)
	})
	if err != nil {
		return nil, fmt.Errorf("read the manifests: %w", err)
	}
	return kept.Bytes(), nil
}

// keepKinds copies the documents of the given kinds.
func keepKinds(to *bytes.Buffer, text []byte, kinds []string) error {
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer documents.Close()
	for {
		document := make([]byte, len(text)+1)
		n, err := documents.Read(document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var object struct{ Kind string }
		if err := yaml.Unmarshal(document[:n], &object); err != nil {
			return err
		}
		if slices.Contains(kinds, object.Kind) {
			fmt.Fprintf(to, "---\n%s\n", document[:n])
		}
	}
}
