package apiserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	generatedcore "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/core"
	generatedexternal "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/externalmetrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver/delegate"
)

const name = "celery-hpa"

// shutdownTimeout bounds how long open requests may take to end at shutdown.
const shutdownTimeout = 5 * time.Second

// Content is what a server serves.
type Content struct {
	// Provider answers the external metrics API.
	Provider provider.ExternalMetricsProvider
	// Metrics answers /metrics.
	Metrics http.Handler
	// Webhooks answer what the API server asks before it writes, by path. Anybody may
	// ask: the API server says not who it is.
	Webhooks map[string]http.Handler
	// Pages answer requests of people, by path, who must have the right to get it.
	Pages map[string]http.Handler
	// Certified decides over /readyz as well, where it is not nil.
	Certified func() error
	// Ready and Alive decide over /readyz and /livez: nil is good, an error is
	// shown to whoever asks.
	Ready, Alive func() error
}

// Server is a server whose socket is open already. Requests are answered while
// Run runs.
type Server struct {
	listener net.Listener
	run      func(ctx context.Context) error
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx is done and then lets open requests end. It blocks, and
// closes the server's socket when it returns.
func (s *Server) Run(ctx context.Context) error { return s.run(ctx) }

// NewSecure makes a server for the cluster that the options name, and opens its
// socket.
func NewSecure(o *Options, content Content) (*Server, error) {
	config := newConfig(content)
	if err := o.applyTo(config, slices.Collect(maps.Keys(content.Webhooks))); err != nil {
		return nil, err
	}
	server, err := install(config, content)
	if err != nil {
		return nil, errors.Join(err, config.SecureServing.Listener.Close())
	}
	return &Server{listener: config.SecureServing.Listener, run: server.PrepareRun().RunWithContext}, nil
}

// NewLocal makes a server of plain HTTP, without authentication, on a loopback
// address such as 127.0.0.1:8080, and opens its socket. Any other address is
// refused.
func NewLocal(ctx context.Context, address string, content Content) (*Server, error) {
	if err := checkLoopback(address); err != nil {
		return nil, err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	config := newConfig(content)
	config.ExternalAddress = listener.Addr().String()
	allowAll(config)
	server, err := install(config, content)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	prepared := server.PrepareRun()
	plain := &http.Server{Handler: prepared.Handler, ReadHeaderTimeout: 10 * time.Second}
	return &Server{listener: listener, run: func(ctx context.Context) error {
		defer prepared.Destroy()
		prepared.RunPostStartHooks(ctx)
		return serveUntil(ctx, plain, listener)
	}}, nil
}

// serveUntil serves plain HTTP until ctx is done.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(bounded)
	<-failed
	return err
}

func newConfig(content Content) *genericapiserver.Config {
	config := genericapiserver.NewConfig(apiserver.Codecs)
	// Profiles may show what is in memory, credentials included.
	config.EnableProfiling = false
	// Replaced by content.Metrics, which includes what this would serve.
	config.EnableMetrics = false
	config.ReadyzChecks = append(config.ReadyzChecks, check("brokers", content.Ready))
	if content.Certified != nil {
		config.ReadyzChecks = append(config.ReadyzChecks, check("serving-certificate", content.Certified))
	}
	config.LivezChecks = append(config.LivezChecks, check("sampling", content.Alive))
	chain := config.BuildHandlerChainFunc
	config.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return delegate.Heed(chain(handler, c))
	}
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openAPIDefinitions, namer)
	config.OpenAPIConfig.Info.Title = name
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openAPIDefinitions, namer)
	config.OpenAPIV3Config.Info.Title = name
	return config
}

// install completes the configuration and adds what celery-hpa serves.
func install(config *genericapiserver.Config, content Content) (*genericapiserver.GenericAPIServer, error) {
	completed := (&apiserver.Config{GenericConfig: config}).Complete(nil)
	server, err := completed.New(name, nil, content.Provider)
	if err != nil {
		return nil, fmt.Errorf("set up the external metrics API: %w", err)
	}
	mux := server.GenericAPIServer.Handler.NonGoRestfulMux
	mux.Handle("/metrics", content.Metrics)
	for path, handler := range content.Webhooks {
		mux.Handle(path, handler)
	}
	for path, handler := range content.Pages {
		mux.Handle(path, handler)
	}
	return server.GenericAPIServer, nil
}

func check(name string, of func() error) healthz.HealthChecker {
	return healthz.NamedCheck(name, func(*http.Request) error { return of() })
}

func openAPIDefinitions(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
	definitions := generatedcore.GetOpenAPIDefinitions(ref)
	maps.Copy(definitions, generatedexternal.GetOpenAPIDefinitions(ref))
	return definitions
}
