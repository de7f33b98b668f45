package documents

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/deploy"
)

// Of returns those of the documents that are of some kinds, in their order.
func Of(kinds ...string) ([]byte, error) {
	var kept bytes.Buffer
	if err := keepKinds(&kept, deploy.Install(), kinds); err != nil {
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
