package brokers_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

func TestBrokerShowsNoCredential(t *testing.T) {
	b := brokers.Broker{URL: "redis://:hunter2@h", TLS: brokers.PEM{Key: []byte("hunter2")}, SentinelPassword: "hunter2", ManagementPassword: "hunter2"}
	b.Name, b.Namespace = "a", "n"
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("A broker", "broker", b, "brokers", []brokers.Broker{b})
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("A broker", "broker", b, "brokers", []brokers.Broker{b})
	marshalled, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{"a log": logged.String(), "JSON": string(marshalled)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		shown[verb] = fmt.Sprintf(verb, b) + fmt.Sprintf(verb, &b) + fmt.Sprintf(verb, []brokers.Broker{b})
	}
	for where, text := range shown {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
			t.Errorf("%s shows the password: %s", where, text)
		}
	}
	if !strings.Contains(shown["%v"], "CeleryBroker n/a") {
		t.Errorf("%%v is %s, want the name", shown["%v"])
	}
}
