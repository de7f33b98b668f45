package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// foreign is a server of external metrics that somebody else has installed.
const foreign = `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: keda-operator-metrics-apiserver, namespace: keda, port: 443}
`

// crd is the kind that outlives a release.
const crd = "customresourcedefinition.apiextensions.k8s.io/celerybrokers.celery-hpa.io"

// installation is a cluster, and the Helm that installs celery-hpa in it.
type installation struct {
	cluster
	helm
	// replacing are the flags by which this version of Helm takes over what is not its.
	replacing []string
}

func TestRelease(t *testing.T) {
	c := start(t)
	for name, i := range map[string]installation{
		"Helm 3": {c, newHelm(t, helm3Tool).to(c), []string{"--take-ownership"}},
		"Helm 4": {c, newHelm(t, helm4Tool).to(c), []string{"--take-ownership", "--force-conflicts"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("another server of external metrics is respected", i.respectsOthers)
			t.Run("it is replaced if asked for", i.replacesOthers)
			t.Run("install", i.installs)
			t.Run("upgrade and rollback keep what celery-hpa has written", i.keepsWritten)
			t.Run("uninstall leaves the CeleryBrokers alone", i.uninstalls)
			t.Run("what is left hinders no new release", i.installsAgain)
		})
	}
	t.Run("Helm 4 takes over a release of Helm 3", func(t *testing.T) { takesOver(t, c) })
}

func (i installation) install(t *testing.T, args ...string) {
	t.Helper()
	i.run(t, append([]string{"install", release, chart, "--create-namespace"}, args...)...)
}

func (i installation) respectsOthers(t *testing.T) {
	i.apply(t, foreign)
	_, err := i.try(t.Context(), "install", release, chart, "--create-namespace")
	if err == nil {
		t.Fatal("installed")
	}
	for _, want := range []string{"keda/keda-operator-metrics-apiserver", "apiService.replace"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
	if got := i.servedBy(t); got != "keda/keda-operator-metrics-apiserver true" {
		t.Errorf("the APIService is served by %q, want it untouched", got)
	}
}

// servedBy is the Service that the APIService names, and whether its certificate is
// not verified.
func (c cluster) servedBy(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "get", "apiservice", apiService,
		"--output=jsonpath={.spec.service.namespace}/{.spec.service.name} {.spec.insecureSkipTLSVerify}")
}

func (i installation) replacesOthers(t *testing.T) {
	i.install(t, append(i.replacing, "--set=apiService.replace=true")...)
	if got := i.servedBy(t); got != "celery-hpa/celery-hpa " {
		t.Errorf("the APIService is served by %q, want celery-hpa, whose certificate is verified", got)
	}
	p := i.runProgram(t)
	want := i.written(t)
	i.run(t, "upgrade", release, chart, "--set=apiService.replace=true", "--set=replicas=3")
	i.expectWritten(t, want)
	p.stop(t)
	i.run(t, "uninstall", release, "--wait")
	i.kubectl(t, "delete", crd)
	i.expectLeft(t)
}

func (i installation) installs(t *testing.T) {
	i.install(t)
	i.admitsPods(t)
	if got := i.run(t, "status", release); !strings.Contains(got, "CeleryBroker") {
		t.Errorf("the notes do not say what to do next:\n%s", got)
	}
}

// keepsWritten upgrades to the same, to other values, and to a chart that has changed
// the objects into which celery-hpa writes.
func (i installation) keepsWritten(t *testing.T) {
	p := i.runProgram(t)
	want := i.written(t)
	i.renewSecret(t)
	i.run(t, "upgrade", release, chart)
	i.expectWritten(t, want)
	i.run(t, "upgrade", release, chart, "--set=replicas=3", "--set=podAnnotations.team=airflow")
	i.expectWritten(t, want)
	i.run(t, "upgrade", release, nextChart(t))
	changed := want
	changed.Webhooks = slices.Clone(want.Webhooks)
	for n := range changed.Webhooks {
		changed.Webhooks[n].TimeoutSeconds = new(int32(7))
	}
	i.expectWritten(t, changed)
	if got := i.kubectl(t, "get", "apiservice", apiService, "--output=jsonpath={.spec.versionPriority}"); got != "77" {
		t.Errorf("versionPriority %s after an upgrade, want 77", got)
	}
	i.run(t, "rollback", release, "1")
	i.expectWritten(t, want)
	p.stop(t)
}

// renewSecret deletes the Secret of the certificate, and makes it again as celery-hpa does:
// of the type that other tools make for a certificate, which cannot be changed.
func (c cluster) renewSecret(t *testing.T) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(c.rights(t))
	if err != nil {
		t.Fatal(err)
	}
	secrets := clients.CoreV1().Secrets(namespace)
	secret, err := secrets.Get(t.Context(), "celery-hpa-serving-cert", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "delete", "secret", secret.Name, "--namespace="+namespace)
	secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secret.Name}, Type: corev1.SecretTypeTLS, Data: secret.Data}
	if _, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// nextChart is a later version of the chart.
func nextChart(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "celery-hpa")
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(repository, chart))); err != nil {
		t.Fatal(err)
	}
	for file, change := range map[string]*strings.Replacer{
		"webhooks.yaml":   strings.NewReplacer("timeoutSeconds: 2", "timeoutSeconds: 7", "timeoutSeconds: 3", "timeoutSeconds: 7"),
		"apiservice.yaml": strings.NewReplacer("versionPriority: 100", "versionPriority: 77"),
		"state.yaml":      strings.NewReplacer("  labels:\n", "  annotations: {next: \"true\"}\n  labels:\n"),
	} {
		path := filepath.Join(folder, "templates", file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(change.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func (i installation) uninstalls(t *testing.T) {
	i.run(t, "uninstall", release, "--wait")
	i.expectLeft(t, crd)
}

// installsAgain has rights in one namespace, and goes to the end: the kind itself is not
// kept, and the namespace goes.
func (i installation) installsAgain(t *testing.T) {
	i.install(t, "--set=crds.keep=false", "--set=rbac.namespaces={default}")
	for _, right := range [][]string{{"get", "secrets"}, {"patch", "deployments.apps/scale"}} {
		eventually.Holds(t, patience, fmt.Sprintf("%q in the namespace that was named", right), func() bool { return i.may(t, "default", right[0], right[1]) })
		if i.may(t, "kube-system", right[0], right[1]) {
			t.Errorf("%q in another namespace than the one that was named", right)
		}
	}
	i.run(t, "uninstall", release, "--wait")
	i.expectLeft(t)
	i.kubectl(t, "delete", "namespace", namespace, "--timeout="+patience.String())
}

// takesOver upgrades a release of Helm 3, whose objects were not applied by the server,
// by Helm 4, in both of its ways.
func takesOver(t *testing.T, c cluster) {
	three := installation{c, newHelm(t, helm3Tool).to(c), nil}
	four := installation{c, newHelm(t, helm4Tool).to(c), nil}
	three.install(t)
	p := c.runProgram(t)
	want := c.written(t)
	four.run(t, "upgrade", release, chart, "--set=replicas=3")
	c.expectWritten(t, want)
	four.run(t, "upgrade", release, chart, "--server-side=true", "--set=replicas=4")
	c.expectWritten(t, want)
	p.stop(t)
	four.run(t, "uninstall", release, "--wait")
	c.expectLeft(t, crd)
}

func (c cluster) apply(t *testing.T, text string) {
	t.Helper()
	if _, err := c.KubectlInput(t.Context(), strings.NewReader(text), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// expectLeft waits until of all that is celery-hpa's nothing is left but these.
func (c cluster) expectLeft(t *testing.T, want ...string) {
	t.Helper()
	eventually.Succeeds(t, patience, fmt.Sprintf("%q are left alone", want), func() error {
		got, err := c.left(t.Context())
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			return errors.New("(-want +got):\n" + diff)
		}
		return nil
	})
}

// left are the objects of every kind that are labelled as celery-hpa's, all Secrets and
// Leases of its namespace, and the APIService. It fails where a kind goes meanwhile.
func (c cluster) left(ctx context.Context) ([]string, error) {
	kinds, err := c.Kubectl(ctx, "api-resources", "--verbs=list", "--output=name")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, args := range [][]string{
		{strings.Join(strings.Fields(string(kinds)), ","), "--all-namespaces", "--selector=app.kubernetes.io/name=celery-hpa"},
		{"secrets,leases", "--namespace=" + namespace},
		{"apiservice", apiService},
	} {
		out, err := c.Kubectl(ctx, append([]string{"get", "--output=name", "--ignore-not-found"}, args...)...)
		if err != nil {
			return nil, err
		}
		found = append(found, strings.Fields(string(out))...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
