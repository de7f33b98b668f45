package port_test

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/port"
)

func TestReservedPortIsRefusedToOthersAndOpenToItsOwner(t *testing.T) {
	reserved, err := port.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reserved.Release(); err != nil {
			t.Error(err)
		}
	})
	address := fmt.Sprintf("127.0.0.1:%d", reserved.Number())

	if stranger, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address); err == nil {
		_ = stranger.Close()
		t.Error("a stranger could listen on the reserved port")
	}
	owner, err := sharing().Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("the owner could not listen: %v", err)
	}
	t.Cleanup(func() { _ = owner.Close() })
	for range 20 {
		accepts(t, owner, address)
	}
}

func TestReservationsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		reserved, err := port.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reserved.Release() })
		if seen[reserved.Number()] {
			t.Fatalf("port %d was given out twice", reserved.Number())
		}
		seen[reserved.Number()] = true
	}
}

// sharing listens as kube-apiserver does with --permit-port-sharing.
func sharing() *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(socket uintptr) {
			failed = unix.SetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		if err != nil {
			return err
		}
		return failed
	}}
}

// accepts fails if a connection does not reach the listener, as it would if the
// reservation took it.
func accepts(t *testing.T, listener net.Listener, address string) {
	t.Helper()
	dialer := new(net.Dialer)
	outgoing, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer outgoing.Close()
	incoming, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = incoming.Close()
}
