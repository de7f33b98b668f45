package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/pkg/cli"
)

// kubeVersion is what Helm has to suppose where it sees no cluster.
const kubeVersion = "--kube-version=1.37.0"

// renderings are values that have the chart make all that it can.
func renderings() map[string][]string {
	return map[string][]string{
		"without values": nil,
		"cert-manager":   {"--set=certificates.mode=cert-manager"},
		"brokers file":   {"--set=brokersFile.content=apiVersion: celery-hpa.io/v1alpha1"},
		"all":            {"--values=deploy/helm/celery-hpa/tests/all-values.yaml"},
	}
}

func TestInstallManifestIsUpToDate(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "make", "--silent", "verify-manifests")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("run make manifests: %v\n%s", err, out)
	}
}

func TestChartGivesArgumentsThatServeKnows(t *testing.T) {
	h := newHelm(t, helm4Tool)
	for name, values := range renderings() {
		t.Run(name, func(t *testing.T) {
			text := h.run(t, append([]string{"template", release, chart}, values...)...)
			var deployment appsv1.Deployment
			find(t, text, "Deployment", &deployment)
			args := deployment.Spec.Template.Spec.Containers[0].Args
			serve, flags, err := cli.New("test").Find(args)
			if err != nil || serve.Name() != "serve" {
				t.Fatalf("%q runs %q, %v; want serve", args, serve.Name(), err)
			}
			if err := serve.ParseFlags(flags); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBothVersionsOfHelmRenderTheSame(t *testing.T) {
	var rendered [][]string
	for _, name := range []string{helm3Tool, helm4Tool} {
		args := append([]string{"template", release, chart, kubeVersion}, renderings()["all"]...)
		rendered = append(rendered, documentsOf(newHelm(t, name).run(t, args...)))
	}
	if diff := cmp.Diff(rendered[0], rendered[1]); diff != "" {
		t.Errorf("documents (-Helm 3 +Helm 4):\n%s", diff)
	}
}

// documentsOf are the documents of a text, sorted: each version of Helm has an order of
// its own.
func documentsOf(text string) []string {
	var documents []string
	for document := range strings.SplitSeq(strings.TrimPrefix(text, "---\n"), "\n---\n") {
		documents = append(documents, strings.TrimSpace(document))
	}
	slices.Sort(documents)
	return documents
}

func TestWrongValuesAreNamed(t *testing.T) {
	h := newHelm(t, helm4Tool)
	for _, tt := range []struct{ set, want string }{
		{"replicsa=2", "replicsa"},
		{"replicas=two", "/replicas"},
		{"replicas=-1", "/replicas"},
		{"image.digest=latest", "/image/digest"},
		{"image.tagg=1", "tagg"},
		{"logLevel=LOUD", "/logLevel"},
		{"certificates.mode=none", "/certificates/mode"},
		{"certificates.certManager.issuerRef.nmae=ca", "nmae"},
		{"rbac.namespaces=airflow", "/rbac/namespaces"},
		{"apiService.create=maybe", "/apiService/create"},
		{"topologySpread=tight", "/topologySpread"},
		{"extraArgs[0]=serve", "/extraArgs/0"},
		{"podLabels.app\\.kubernetes\\.io/name=mine", "/podLabels"},
		{"metrics.serviceMonitor.interval=often", "/metrics/serviceMonitor/interval"},
		{"serviceAccount.name=", "/serviceAccount/name"},
	} {
		t.Run(tt.set, func(t *testing.T) {
			_, err := h.try(t.Context(), "template", release, chart, "--set", tt.set)
			if err == nil {
				t.Fatal("it is taken")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v: want the name %s in it", err, tt.want)
			}
		})
	}
}

func TestEveryValueIsDescribed(t *testing.T) {
	var values map[string]any
	decode(t, string(read(t, chart, "values.yaml")), &values)
	table := string(read(t, chart, "README.md"))
	for _, name := range leaves("", values) {
		if !strings.Contains(table, "`"+name+"`") {
			t.Errorf("README.md of the chart says nothing of %s", name)
		}
	}
}

// leaves are the names of values that hold no others, like image.tag.
func leaves(prefix string, values map[string]any) []string {
	var names []string
	for name, value := range values {
		if inner, ok := value.(map[string]any); ok && len(inner) > 0 && !isKubernetes(name) {
			names = append(names, leaves(prefix+name+".", inner)...)
			continue
		}
		names = append(names, prefix+name)
	}
	return names
}

// isKubernetes tells whether what a value holds is Kubernetes' to describe.
func isKubernetes(name string) bool { return name == "resources" || name == "labels" }

func TestChartIsPackagedWithItsFiles(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{helm3Tool, helm4Tool} {
		h := newHelm(t, name)
		h.run(t, "package", chart, "--destination", folder, "--version", "9.9.9")
		text := h.run(t, "template", release, filepath.Join(folder, "celery-hpa-9.9.9.tgz"), kubeVersion, "--set=metrics.dashboard.enabled=true")
		for _, want := range []string{"kind: CustomResourceDefinition", `"panels"`} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: what is packaged has no %s", name, want)
			}
		}
	}
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{repository}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// find decodes the document of that kind, if the text has one.
func find(t *testing.T, text, kind string, into any) {
	t.Helper()
	for document := range bytes.SplitSeq([]byte(text), []byte("\n---\n")) {
		if bytes.Contains(document, []byte("\nkind: "+kind+"\n")) {
			decode(t, string(document), into)
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(strings.TrimSpace(text)), into); err != nil {
		t.Fatal(err)
	}
}
