package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// Hint is advice for an error of the network or of TLS, whatever is spoken over
// it; empty if there is none.
func Hint(err error) string {
	advice := []struct{ sign, hint string }{
		{"connection refused", "is the server running at this address?"},
		{"no such host", "check the host name of the URL"},
		{"certificate required", "the server wants a client certificate: set certFile and keyFile"},
	}
	for _, a := range advice {
		if strings.Contains(err.Error(), a.sign) {
			return a.hint
		}
	}
	return hintForType(err)
}

// hintForType is advice for causes that have a type rather than a text.
func hintForType(err error) string {
	var (
		timeout   net.Error
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		verify    *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &authority):
		return "the server's certificate is of an unknown authority: set caFile or ssl_ca_certs"
	case errors.As(err, &hostname):
		return "the server's certificate is for another name: correct the host of the URL, or set ssl_check_hostname=false"
	case errors.As(err, &verify):
		return "the server's certificate is not valid"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time: is the server overloaded or paused, is the network blocked, or does a port without TLS get a URL with TLS?"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the server closed the connection: does it want TLS or a client certificate, or does it take no more connections?"
	}
	return ""
}
