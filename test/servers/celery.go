package servers

import (
	_ "embed"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/setup"
)

//go:embed celeryapp.py
var celeryApp []byte

// CeleryOptions say how a Celery application talks to its broker.
type CeleryOptions struct {
	// BrokerURL is the broker's URL, as Celery writes it. Required.
	BrokerURL string
	// Conf holds further settings by their lower-case names, for example
	// broker_transport_options. Values are given to Celery as JSON.
	Conf map[string]any
	// Queues are declared with an exchange, a routing key and arguments of their
	// own. Queues that publishers or workers merely name need not stand here.
	Queues []CeleryQueue
}

// CeleryQueue is a queue whose exchange or routing key differ from its name, or
// that has arguments.
type CeleryQueue struct {
	Name string `json:"name"`
	// Exchange may be empty: Celery's default exchange.
	Exchange string `json:"exchange"`
	// ExchangeType is direct, topic or fanout.
	ExchangeType string `json:"exchange_type"`
	// RoutingKey may be empty: the queue's name.
	RoutingKey string `json:"routing_key"`
	// Arguments are those of RabbitMQ's queues, for example x-max-priority.
	Arguments map[string]any `json:"arguments"`
}

// Celery is one Celery application: its workers and its publisher share the
// settings, and what they do is recorded. It is safe for concurrent use.
type Celery struct {
	python string
	folder string
	env    []string

	publisher publisher
}

// NewCelery prepares an application; it starts nothing. The test fails at once if
// there is no Python with Celery.
func NewCelery(t testing.TB, options CeleryOptions) *Celery {
	t.Helper()
	python, err := setup.Python()
	if err != nil {
		t.Fatal(err)
	}
	c := &Celery{python: python, folder: t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.folder, "celeryapp.py"), celeryApp, 0o600); err != nil {
		t.Fatalf("write the Celery application: %v", err)
	}
	settings, err := json.Marshal(map[string]any{
		"conf": c.conf(options), "queues": options.Queues, "record": c.recordPath(),
	})
	if err != nil {
		t.Fatalf("write the settings of the Celery application: %v", err)
	}
	c.env = append(os.Environ(), "CELERYAPP="+string(settings),
		// What Celery leaves behind when it is killed goes with the folder.
		"TMPDIR="+c.folder,
		"PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore")
	return c
}

func (c *Celery) conf(options CeleryOptions) map[string]any {
	conf := map[string]any{"broker_url": options.BrokerURL, "task_ignore_result": true}
	maps.Copy(conf, options.Conf)
	return conf
}

func (c *Celery) recordPath() string { return filepath.Join(c.folder, "record") }
