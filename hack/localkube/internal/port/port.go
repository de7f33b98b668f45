package port

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reservation holds a port of 127.0.0.1 for a child that is told its number. A
// socket that is bound with SO_REUSEPORT but never listens keeps the kernel from
// giving the port to anybody who asks for a free one or connects from one, while
// a child of the same user that sets SO_REUSEPORT as well can listen on it and
// receives every connection. Nothing can take the port in between, however many
// clusters start at once.
type Reservation struct {
	socket int
	number int
}

// Reserve chooses a port that nobody uses. Release must be called.
func Reserve() (*Reservation, error) {
	socket, err := openSocket()
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	number, err := bindFreePort(socket)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reserve a port: %w", err), unix.Close(socket))
	}
	return &Reservation{socket: socket, number: number}, nil
}

// openSocket holds the fork lock so that no child inherits the socket, and with
// it the port.
func openSocket() (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(socket)
	}
	return socket, err
}

func bindFreePort(socket int) (int, error) {
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	address, err := unix.Getsockname(socket)
	if err != nil {
		return 0, err
	}
	inet4, ok := address.(*unix.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("bound to %T, not to an IPv4 address", address)
	}
	return inet4.Port, nil
}

// Number is the port.
func (r *Reservation) Number() int { return r.number }

// Release gives the port back. The child must have ended. Call it once.
func (r *Reservation) Release() error {
	if err := unix.Close(r.socket); err != nil {
		return fmt.Errorf("release port %d: %w", r.number, err)
	}
	return nil
}
