package replicas_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
)

// entrance stands for the Service of celery-hpa as kube-proxy makes it, which the API
// server uses unless it has --enable-aggregator-routing: each new connection goes to one
// of the endpoints, by chance, also if nobody listens there any more. A connection stays
// where it is until one of its ends closes it, also after its endpoint was taken out.
type entrance struct {
	listener net.Listener
	carrying sync.WaitGroup

	mu        sync.Mutex
	random    *rand.Rand
	endpoints []string
	open      map[net.Conn]bool
	refused   int // connections that were given to an endpoint where nobody listens
	closed    bool
}

// openEntrance listens until the test ends.
func openEntrance(t *testing.T, random *rand.Rand) *entrance {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nobody waits for it
	check(t, err)
	e := &entrance{listener: listener, random: random, open: map[net.Conn]bool{}}
	e.carrying.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			e.carrying.Go(func() { e.carry(connection) })
		}
	})
	t.Cleanup(e.close)
	return e
}

func (e *entrance) port() int32 { return int32(e.listener.Addr().(*net.TCPAddr).Port) }

func (e *entrance) add(endpoint string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endpoints = append(e.endpoints, endpoint)
}

func (e *entrance) remove(endpoint string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endpoints = slices.DeleteFunc(e.endpoints, func(s string) bool { return s == endpoint })
}

// carry gives a connection to an endpoint, and closes both ends when one is closed.
func (e *entrance) carry(connection net.Conn) {
	defer e.forget(connection)
	if !e.remember(connection) {
		return
	}
	endpoint, err := net.Dial("tcp", e.pick()) //nolint:noctx // loopback answers at once
	if err != nil {
		e.count(connection)
		return
	}
	defer e.forget(endpoint)
	if !e.remember(endpoint) {
		return
	}
	e.carrying.Go(func() {
		_, _ = io.Copy(endpoint, connection) // it ends with the connection
		e.forget(endpoint)
	})
	_, _ = io.Copy(connection, endpoint)
}

// pick returns an address where nobody listens if there is no endpoint.
func (e *entrance) pick() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.endpoints) == 0 {
		return "127.0.0.1:1"
	}
	return e.endpoints[e.random.IntN(len(e.endpoints))]
}

// count has whoever connected see a reset, as of a port where nobody listens.
func (e *entrance) count(connection net.Conn) {
	_ = connection.(*net.TCPConn).SetLinger(0)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused++
}

// remember returns false if the entrance is closed.
func (e *entrance) remember(connection net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open[connection] = true
	return !e.closed
}

func (e *entrance) forget(connection net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, connection)
	_ = connection.Close()
}

func (e *entrance) close() {
	e.mu.Lock()
	e.closed = true
	errs := []error{e.listener.Close()}
	for connection := range e.open {
		errs = append(errs, connection.Close())
	}
	e.mu.Unlock()
	_ = errors.Join(errs...) // the other end may have been first
	e.carrying.Wait()
}
