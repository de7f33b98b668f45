package faults_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy is a network between clients and a server that can be cut: connections stay
// open, and nothing comes through.
type proxy struct {
	server   string
	listener net.Listener
	copying  sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	isCut   bool
	closed  bool
	ends    []net.Conn
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{server: server, listener: l}
	p.changed.L = &p.mu
	p.copying.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// through is a URL of the server that leads through the proxy.
func (p *proxy) through(url string) string {
	return strings.Replace(url, p.server, p.listener.Addr().String(), 1)
}

// setCut cuts the network, or passes on what has come meanwhile and all that comes.
func (p *proxy) setCut(isCut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = isCut
	p.changed.Broadcast()
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.changed.Broadcast()
	_ = p.listener.Close()
	for _, end := range p.ends {
		_ = end.Close()
	}
	p.mu.Unlock()
	p.copying.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.connect(client)
	}
}

// connect joins a client with the server. When one of them ends the connection, the
// other is told.
func (p *proxy) connect(client net.Conn) {
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), "tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_, _ = client.Close(), server.Close()
		return
	}
	p.ends = append(p.ends, client, server)
	p.copying.Go(func() { p.pass(client, server) })
	p.copying.Go(func() { p.pass(server, client) })
}

func (p *proxy) pass(from, to net.Conn) {
	defer to.Close()
	chunk := make([]byte, 64<<10)
	for {
		n, err := from.Read(chunk)
		p.awaitPassage()
		_, failed := to.Write(chunk[:n])
		if err != nil || failed != nil {
			return
		}
	}
}

func (p *proxy) awaitPassage() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.isCut && !p.closed {
		p.changed.Wait()
	}
}
