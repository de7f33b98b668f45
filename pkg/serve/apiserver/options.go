package apiserver

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// defaultPort is above 1024, so that no privilege is needed to open it.
const defaultPort = 6443

// Options say where a secure server listens and which cluster it trusts.
type Options struct {
	// Kubeconfig names the cluster that authenticates and authorizes. Empty: the
	// cluster that the process runs in.
	Kubeconfig string
	// Certificate is what to serve with, in place of the files that flags name or of a
	// self-signed one. It must have something to serve at any time.
	Certificate dynamiccertificates.CertKeyContentProvider
	// ShutdownDelay is for how long a server that is told to stop goes on as before, but
	// for /readyz, so that whoever sends it requests learns in time to send them elsewhere.
	ShutdownDelay time.Duration

	serving        *genericoptions.SecureServingOptionsWithLoopback
	authentication *genericoptions.DelegatingAuthenticationOptions
	authorization  *genericoptions.DelegatingAuthorizationOptions
}

// NewOptions returns the defaults: port 6443 on all addresses, with a
// self-signed certificate kept in memory.
func NewOptions() *Options {
	o := &Options{
		serving:        genericoptions.NewSecureServingOptions().WithLoopback(),
		authentication: genericoptions.NewDelegatingAuthenticationOptions(),
		authorization:  genericoptions.NewDelegatingAuthorizationOptions(),
	}
	o.serving.BindPort = defaultPort
	o.serving.ServerCert.CertDirectory = ""
	return o
}

// AddFlags adds the flags of our own to a flag set.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig,
		"`file` that names the cluster to serve, where celery-hpa runs outside of it")
	flags.DurationVar(&o.ShutdownDelay, "shutdown-delay-duration", o.ShutdownDelay,
		"how long to go on after being told to stop, with /readyz alone failing, until nobody sends requests any more")
}

// AddLibraryFlags adds the flags that the API server library has for serving,
// authentication and authorization to a flag set.
func (o *Options) AddLibraryFlags(flags *pflag.FlagSet) {
	o.serving.AddFlags(flags)
	o.authentication.AddFlags(flags)
	o.authorization.AddFlags(flags)
}

// applyTo opens the socket and sets up TLS, authentication and authorization, which
// for some paths is none.
func (o *Options) applyTo(config *genericapiserver.Config, open []string) error {
	if err := o.complete(); err != nil {
		return err
	}
	config.ShutdownDelayDuration = o.ShutdownDelay
	if err := o.certify(); err != nil {
		return err
	}
	if err := o.serving.ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return fmt.Errorf("open the serving port: %w", err)
	}
	o.authorization.AlwaysAllowPaths = append(o.authorization.AlwaysAllowPaths, open...)
	if err := errors.Join(
		o.authentication.ApplyTo(&config.Authentication, config.SecureServing, config.OpenAPIConfig),
		o.authorization.ApplyTo(&config.Authorization),
	); err != nil {
		return errors.Join(
			fmt.Errorf("delegate authentication and authorization to the cluster: %w", err),
			config.SecureServing.Listener.Close())
	}
	return nil
}

// certify decides what to serve with.
func (o *Options) certify() error {
	if o.Certificate != nil {
		o.serving.ServerCert.GeneratedCert = o.Certificate
		return nil
	}
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	if err := o.serving.MaybeDefaultWithSelfSignedCerts("localhost", nil, loopback); err != nil {
		return fmt.Errorf("make a serving certificate: %w", err)
	}
	return nil
}

// complete lets the one kubeconfig stand for the two that the flags of the API
// server library name, and validates.
func (o *Options) complete() error {
	if err := o.checkCluster(); err != nil {
		return err
	}
	if o.authentication.RemoteKubeConfigFile == "" {
		o.authentication.RemoteKubeConfigFile = o.Kubeconfig
	}
	if o.authorization.RemoteKubeConfigFile == "" {
		o.authorization.RemoteKubeConfigFile = o.Kubeconfig
	}
	var errs []error
	if o.ShutdownDelay < 0 {
		errs = append(errs, fmt.Errorf("--shutdown-delay-duration is %s: it must not be negative", o.ShutdownDelay))
	}
	errs = append(errs, o.serving.Validate()...)
	errs = append(errs, o.authentication.Validate()...)
	errs = append(errs, o.authorization.Validate()...)
	return errors.Join(errs...)
}

// ClientConfig says how to reach the cluster that the options name.
func (o *Options) ClientConfig() (*rest.Config, error) {
	if err := o.checkCluster(); err != nil {
		return nil, err
	}
	return clientcmd.BuildConfigFromFlags("", o.Kubeconfig) // without a kubeconfig the cluster that it runs in
}

// checkCluster refuses a cluster that is not there to be asked, before the socket
// is opened and with one error instead of the library's one for each use.
func (o *Options) checkCluster() error {
	if o.Kubeconfig == "" {
		if _, err := rest.InClusterConfig(); err != nil {
			return fmt.Errorf("no cluster to serve: give --kubeconfig, or --local to serve without a cluster: %w", err)
		}
		return nil
	}
	if _, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig); err != nil {
		return fmt.Errorf("kubeconfig %s: %w", o.Kubeconfig, err)
	}
	return nil
}

// allowAll lets everybody who can reach the server read everything.
func allowAll(config *genericapiserver.Config) {
	config.Authentication.Authenticator = anonymous.NewAuthenticator(nil)
	config.Authentication.APIAudiences = authenticator.Audiences{}
	config.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	// The library wants one. It is for its own clients, of which there are none.
	config.LoopbackClientConfig = &rest.Config{}
}

// checkLoopback refuses an address that others than this machine could reach.
func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address %q: want HOST:PORT, such as 127.0.0.1:8080: %w", address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen address %q: plain HTTP without authentication is served on loopback only: use 127.0.0.1 or [::1]", address)
	}
	return nil
}
