package playground_test

import (
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

func TestUnknownBrokerIsRefusedBeforeAnythingStarts(t *testing.T) {
	var output strings.Builder
	p, err := playground.Start(t.Context(), playground.Options{Output: &output, Broker: "kafka"})
	if err == nil || !strings.Contains(err.Error(), `"kafka" here: choose redis or rabbitmq`) {
		t.Errorf("error %v does not name the brokers that there are", err)
	}
	if err := p.Stop(); err != nil || output.Len() > 0 {
		t.Errorf("something was started: %v: %s", err, &output)
	}
}
