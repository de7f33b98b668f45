package playground

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed manifests.yaml
var manifests string

//go:embed brokers.yaml
var brokers string

//go:embed tasks.py
var tasks []byte

// layout is where everything is. The templates read its fields.
type layout struct {
	Namespace   string
	Workers     Fleet
	MaxReplicas int
	Replicas    int // of celery-hpa

	Dir         string // of the playground, temporary
	Python      string // that can import celery
	Binary      string // celery-hpa
	BrokersFile string
	Kubeconfig  string // of celery-hpa, with its own rights
	CertFile    string
	KeyFile     string
	Record      string // what the tasks did

	Broker     Broker
	BrokerPort int
	BrokerURL  string
	RabbitMQ   *rabbitMQ // nil with another broker

	Port int // of celery-hpa
}

func newLayout(dir, python string, options Options) (layout, error) {
	ports, err := freePorts(5)
	if err != nil {
		return layout{}, err
	}
	l := layout{
		Namespace:   Namespace,
		Workers:     options.Workers.withDefaults(),
		MaxReplicas: orDefault(options.MaxReplicas, 5),
		Replicas:    orDefault(options.Replicas, 1),
		Dir:         dir,
		Python:      python,
		Binary:      filepath.Join(dir, "celery-hpa"),
		BrokersFile: filepath.Join(dir, "brokers.yaml"),
		CertFile:    filepath.Join(dir, "tls.crt"),
		KeyFile:     filepath.Join(dir, "tls.key"),
		Record:      filepath.Join(dir, "record"),
		Broker:      orDefault(options.Broker, Redis),
		BrokerPort:  ports[1],
		Port:        ports[0],
	}
	if err := l.addBroker(ports[2:]); err != nil {
		return layout{}, err
	}
	text, err := l.render(brokers)
	if err != nil {
		return layout{}, err
	}
	return l, write(map[string][]byte{filepath.Join(dir, "tasks.py"): tasks, l.BrokersFile: text, l.Record: nil})
}

// render fills a template of YAML.
func (l layout) render(text string) ([]byte, error) {
	functions := template.FuncMap{"json": func(value any) (string, error) {
		text, err := json.Marshal(value) // which is YAML too
		return string(text), err
	}}
	parsed, err := template.New("").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse a template of the playground: %w", err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, l); err != nil {
		return nil, fmt.Errorf("fill a template of the playground: %w", err)
	}
	return out.Bytes(), nil
}

func write(files map[string][]byte) error {
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("write a file of the playground: %w", err)
		}
	}
	return nil
}

// freePorts finds ports of loopback that nobody listens on. They are held until
// all are found, so that none is found twice.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
