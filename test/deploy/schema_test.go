package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestDocumentsFitTheSchemasOfTheCluster(t *testing.T) {
	schemas, conform := start(t).schemas(t), tool(t, kubeconformTool)
	check := func(t *testing.T, text string) error {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), conform, "-strict", "-skip="+strings.Join(operatorKinds, ","),
			"-schema-location="+schemas+"/{{.ResourceKind}}{{.KindSuffix}}.json")
		cmd.Stdin = strings.NewReader(text)
		out, err := output(cmd)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	h := newHelm(t, helm4Tool)
	for name, values := range renderings() {
		t.Run(name, func(t *testing.T) {
			text := h.run(t, append([]string{"template", release, chart}, values...)...)
			if err := check(t, text); err != nil {
				t.Error(err)
			}
			if err := check(t, text+wrong); err == nil {
				t.Error("a Service with an unknown field passes")
			}
		})
	}
}

// wrong is a document with a misspelt field.
const wrong = `
---
apiVersion: v1
kind: Service
metadata: {name: wrong}
spec: {selectr: {a: b}}
`

// document is what of an OpenAPI 3 document is needed: the schemas of one API group
// version, by name.
type document struct {
	Components struct {
		Schemas map[string]map[string]any `json:"schemas"`
	} `json:"components"`
}

// schemas writes a JSON schema for each kind that the chart makes, from what the API
// server says of itself, into a folder. No other fields are allowed than it names.
func (c cluster) schemas(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for path, kinds := range map[string][]schema.GroupVersionKind{
		"api/v1":                               kindsOf("", "v1", "ConfigMap", "Secret", "Service", "ServiceAccount"),
		"apis/apps/v1":                         kindsOf("apps", "v1", "Deployment"),
		"apis/policy/v1":                       kindsOf("policy", "v1", "PodDisruptionBudget"),
		"apis/networking.k8s.io/v1":            kindsOf("networking.k8s.io", "v1", "NetworkPolicy"),
		"apis/coordination.k8s.io/v1":          kindsOf("coordination.k8s.io", "v1", "Lease"),
		"apis/rbac.authorization.k8s.io/v1":    kindsOf("rbac.authorization.k8s.io", "v1", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
		"apis/apiregistration.k8s.io/v1":       kindsOf("apiregistration.k8s.io", "v1", "APIService"),
		"apis/apiextensions.k8s.io/v1":         kindsOf("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
		"apis/admissionregistration.k8s.io/v1": kindsOf("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"),
	} {
		var d document
		if err := json.Unmarshal([]byte(c.kubectl(t, "get", "--raw", "/openapi/v3/"+path)), &d); err != nil {
			t.Fatal(err)
		}
		for _, one := range d.Components.Schemas {
			forbidOthers(one)
		}
		for _, kind := range kinds {
			d.write(t, folder, kind)
		}
	}
	return folder
}

func kindsOf(group, version string, names ...string) []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, name := range names {
		kinds = append(kinds, schema.GroupVersionKind{Group: group, Version: version, Kind: name})
	}
	return kinds
}

// forbidOthers has a schema, and those within it, forbid what they do not name.
func forbidOthers(part any) {
	switch part := part.(type) {
	case []any:
		for _, inner := range part {
			forbidOthers(inner)
		}
	case map[string]any:
		_, names := part["properties"].(map[string]any)
		if _, others := part["additionalProperties"]; names && !others && part["x-kubernetes-preserve-unknown-fields"] == nil {
			part["additionalProperties"] = false
		}
		for _, inner := range part {
			forbidOthers(inner)
		}
	}
}

// write writes the schema of a kind under the name by which kubeconform looks for it.
func (d document) write(t *testing.T, folder string, kind schema.GroupVersionKind) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"$ref": "#/components/schemas/" + d.nameOf(t, kind), "components": d.Components})
	if err != nil {
		t.Fatal(err)
	}
	group, _, _ := strings.Cut(kind.GroupVersion().String(), ".")
	group, _, _ = strings.Cut(group, "/")
	name := kind.Kind + "-" + group
	if kind.Group != "" {
		name += "-" + kind.Version
	}
	if err := os.WriteFile(filepath.Join(folder, strings.ToLower(name)+".json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nameOf finds the schema of a kind.
func (d document) nameOf(t *testing.T, kind schema.GroupVersionKind) string {
	t.Helper()
	for name, one := range d.Components.Schemas {
		kinds, _ := one["x-kubernetes-group-version-kind"].([]any)
		for _, of := range kinds {
			if named, _ := of.(map[string]any); named["group"] == kind.Group && named["version"] == kind.Version && named["kind"] == kind.Kind {
				return name
			}
		}
	}
	t.Fatalf("the cluster has no schema of %s", kind)
	return ""
}
