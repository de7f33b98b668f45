package playground

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/rabbitmq"
)

// Broker is a kind of broker, by the name that its pods have.
type Broker string

// The brokers that a playground can have.
const (
	Redis    Broker = "redis"
	RabbitMQ Broker = "rabbitmq"
)

//go:embed redis.yaml
var redisManifests string

//go:embed rabbitmq.yaml
var rabbitMQManifests string

// Title is the broker's name as people write it.
func (b Broker) Title() string {
	if b == RabbitMQ {
		return "RabbitMQ"
	}
	return "Redis"
}

func (b Broker) manifests() string {
	if b == RabbitMQ {
		return rabbitMQManifests
	}
	return redisManifests
}

// rabbitMQ is what the templates need to know of a RabbitMQ.
type rabbitMQ struct {
	rabbitmq.Node
	EPMD string // the program
}

// addBroker decides where the broker is, and writes its files. It needs three free
// ports besides that of the clients.
func (l *layout) addBroker(ports []int) error {
	switch l.Broker {
	case Redis:
		l.BrokerURL = fmt.Sprintf("redis://%s/0", l.brokerAddress())
		return nil
	case RabbitMQ:
		l.BrokerURL = fmt.Sprintf("amqp://%s//", l.brokerAddress())
		return l.addRabbitMQ(ports)
	}
	return fmt.Errorf("no broker is called %q here: choose %s or %s", l.Broker, Redis, RabbitMQ)
}

func (l *layout) addRabbitMQ(ports []int) error {
	epmd, err := rabbitmq.PortMapper()
	if err != nil {
		return err
	}
	node := rabbitmq.Node{
		Folder: filepath.Join(l.Dir, "rabbitmq"),
		AMQP:   l.BrokerPort, Management: ports[0], Distribution: ports[1], PortMapper: ports[2],
	}
	l.RabbitMQ = &rabbitMQ{Node: node, EPMD: epmd}
	if err := node.LinkHome(); err != nil {
		return err
	}
	return write(node.Files())
}

func (l *layout) brokerAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.BrokerPort))
}

// startBroker applies the broker alone and blocks until it takes connections: a
// worker that finds none waits longer and longer before it tries again.
func (p *Playground) startBroker(ctx context.Context, _ Options) error {
	title := p.layout.Broker.Title()
	step := p.progress.Start("starting " + title)
	err := p.applyBroker(ctx)
	if err == nil {
		err = p.awaitBroker(ctx)
	}
	step.Done(err)
	if err != nil {
		return fmt.Errorf("start %s: %w\n%s", title, err, p.podLogs())
	}
	return nil
}

func (p *Playground) applyBroker(ctx context.Context) error {
	if _, err := p.Cluster.Kubectl(ctx, "create", "namespace", Namespace); err != nil {
		return err
	}
	return p.applyTemplate(ctx, p.layout.Broker.manifests())
}

func (p *Playground) awaitBroker(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	address := p.layout.brokerAddress()
	for !listens(ctx, address) {
		if exit := p.brokerExit(); exit != nil {
			return fmt.Errorf("pod %s ended with code %d", exit.Pod, exit.ExitCode)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing answers at %s within %s: %w", address, startTimeout, ctx.Err())
		case <-p.Cluster.Done():
			return fmt.Errorf("the control plane has ended: %w", p.Cluster.Err())
		case <-time.After(pollInterval):
		}
	}
	return nil
}

func listens(ctx context.Context, address string) bool {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	return connection.Close() == nil
}

// brokerExit is the first end of a pod of the broker, or nil. Before the workers
// are installed there are no other pods.
func (p *Playground) brokerExit() *procnode.Event {
	for _, e := range p.Node.Events() {
		if e.Kind == procnode.Exit {
			return &e
		}
	}
	return nil
}
