package certificates_test

import (
	"bytes"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

func (f *fixture) apiService(t *testing.T) *apiregistrationv1.APIService {
	t.Helper()
	found, err := f.registry.ApiregistrationV1().APIServices().Get(t.Context(), apiServiceName, metav1.GetOptions{})
	must(t, err)
	return found
}

func (f *fixture) webhooks(t *testing.T) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	found, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), webhooksName, metav1.GetOptions{})
	must(t, err)
	return found
}

func (f *fixture) writesWhatDiffers(t *testing.T) {
	object := f.webhooks(t)
	theirs := object.Webhooks[0].DeepCopy()
	theirs.Name, theirs.ClientConfig = "theirs.example.org", admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/")}
	object.Webhooks[0].ClientConfig.CABundle = nil
	object.Webhooks = append(object.Webhooks, *theirs)
	_, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(t.Context(), object, metav1.UpdateOptions{})
	must(t, err)
	f.deleteSecret(t) // which is good for seconds
	log := &servers.Transcript{}
	keeper := newKeeper(t, f.cluster.RESTConfig(), log, true)
	keeper.Prepare(t.Context())
	f.checkTrust(t)
	webhooks, secret := f.webhooks(t).ResourceVersion, f.secret(t).ResourceVersion
	keeper.Prepare(t.Context())
	if f.webhooks(t).ResourceVersion != webhooks || f.secret(t).ResourceVersion != secret {
		t.Error("something was written that was right")
	}
	if log.Count("level=WARN") > 0 {
		t.Errorf("warnings:\n%s", log)
	}
}

// checkTrust looks at each webhook: all trust us, but for the one that is not ours.
func (f *fixture) checkTrust(t *testing.T) {
	t.Helper()
	want := f.secret(t).Data["ca.crt"]
	for _, w := range f.webhooks(t).Webhooks {
		ours := strings.HasSuffix(w.Name, ".celery-hpa.io")
		if bytes.Equal(w.ClientConfig.CABundle, want) != ours {
			t.Errorf("webhook %s trusts %q", w.Name, w.ClientConfig.CABundle)
		}
	}
}

func (f *fixture) leavesOthersAlone(t *testing.T) {
	for _, tt := range []struct{ rule, patch, want string }{
		{"another Service", `{"spec": {"caBundle": null, "service": {"namespace": "keda", "name": "keda"}}}`, "its Service is not celery-hpa/celery-hpa"},
		{
			"no verification", `{"spec": {"caBundle": null, "insecureSkipTLSVerify": true, "service": {"namespace": "celery-hpa", "name": "celery-hpa"}}}`,
			"it has insecureSkipTLSVerify, and so trusts everybody",
		},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			_, err := f.registry.ApiregistrationV1().APIServices().Patch(t.Context(), apiServiceName, types.MergePatchType, []byte(tt.patch), metav1.PatchOptions{})
			must(t, err)
			log := &servers.Transcript{}
			keeper := newKeeper(t, f.cluster.RESTConfig(), log, true)
			for range 2 {
				keeper.Prepare(t.Context())
			}
			if bundle := f.apiService(t).Spec.CABundle; bundle != nil {
				t.Errorf("the caBundle is %s", bundle)
			}
			if log.Count(tt.want) != 1 || log.Count("level=WARN") != 0 {
				t.Errorf("want it said once that %s:\n%s", tt.want, log)
			}
		})
	}
}

func (f *fixture) needsNoWebhooks(t *testing.T) {
	must(t, f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), webhooksName, metav1.DeleteOptions{}))
	log := &servers.Transcript{}
	keeper := newKeeper(t, f.cluster.RESTConfig(), log, true)
	for range 2 {
		keeper.Prepare(t.Context())
	}
	const want = "there is no ValidatingWebhookConfiguration celery-hpa; see docs/install.md"
	if log.Count(want) != 1 || log.Count("level=WARN") != 0 {
		t.Errorf("want it said once that %s:\n%s", want, log)
	}
}
