package cli

import (
	"cmp"
	"errors"
	"log/slog"
	"os"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver"
)

func newServe(version string) *cobra.Command {
	o := app.Options{
		Server: apiserver.NewOptions(), Certificates: certificates.DefaultOptions(),
		Version: version, Identity: identity(),
	}
	var level slog.Level
	var format logFormat
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Sample the brokers and serve the external metrics API",
		Long: "serve samples every broker that a CeleryBroker of the cluster or of the brokers\n" +
			"file names, and answers the external metrics API from memory, until it is told\n" +
			"to stop.\n\n" +
			"In a cluster it needs no flags. Outside of one give --kubeconfig. With --local no\n" +
			"cluster is needed at all: the same paths are served as plain HTTP on loopback,\n" +
			"for the brokers of the brokers file.",
		Example: "  celery-hpa serve --local --listen 127.0.0.1:8080 --brokers-file brokers.yaml\n" +
			"  curl '127.0.0.1:8080/apis/external.metrics.k8s.io/v1beta1/namespaces/default/celery_queue_tasks?labelSelector=queue%3Dcelery'",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkServe(cmd, o); err != nil {
				return err
			}
			o.Log = newLogger(cmd, level, format)
			setLibraryLogs(cmd, level, format)
			a, err := app.New(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	flags, library := newFlagSet(), newFlagSet()
	flags.StringVar(&o.BrokersFile, "brokers-file", "", "`file` with CeleryBroker documents, besides those of the cluster; required with --local")
	flags.BoolVar(&o.Local, "local", false, "serve plain HTTP on loopback, without a cluster")
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "loopback `address` to serve on with --local")
	o.Server.AddFlags(flags)
	flags.StringVar(&o.Namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), defaultNamespace),
		"`namespace` of celery-hpa itself, where its replicas elect a leader; by default $POD_NAMESPACE")
	flags.StringVar(&o.Certificates.Secret, "serving-secret", "",
		"`name` of the Secret in that namespace where celery-hpa keeps an authority and a serving certificate of its own, "+
			"and has the API server trust them; without it, it serves with --tls-cert-file")
	flags.DurationVar(&o.Certificates.Lifetime, "serving-certificate-lifetime", o.Certificates.Lifetime,
		"how long a serving certificate of --serving-secret is good; it is renewed when a third of that is left")
	flags.StringVar(&o.Delegate.URL, "delegate", "",
		"`https://HOST:PORT` of another server of external metrics, which is asked for all metrics that are not celery-hpa's")
	flags.StringVar(&o.Delegate.CAFile, "delegate-ca-file", "",
		"`file` with the authorities of that server's certificate; by default those of the cluster")
	flags.BoolVar(&o.Delegate.SkipVerify, "delegate-insecure-skip-tls-verify", false,
		"take any certificate of that server, as an APIService with insecureSkipTLSVerify does")
	flags.TextVar(&level, "log-level", slog.LevelInfo, "least severe `level` to log: DEBUG, INFO, WARN or ERROR")
	flags.TextVar(&format, "log-format", logText, "`format` of the log: text or json")
	o.Server.AddLibraryFlags(library)
	setSections(cmd, section{"Flags", flags, 100}, section{"Flags of the API server, without meaning for --local", library, 160})
	return cmd
}

// defaultNamespace is where the manifests install celery-hpa.
const defaultNamespace = "celery-hpa"

// identity tells this process from the other replicas: the name of its pod, or the
// host's where that is not told, and something of its own.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "celery-hpa"
	}
	return cmp.Or(os.Getenv("POD_NAME"), host) + "_" + uuid.NewString()
}

// setLibraryLogs tames what libraries log for the whole process. Of the API
// server library only what is a level more severe than our own messages is of
// interest; klog knows one logger per process. The Redis client logs what the
// sampling loops report anyway.
func setLibraryLogs(cmd *cobra.Command, level slog.Level, format logFormat) {
	const step = slog.LevelWarn - slog.LevelInfo
	klog.SetSlogLogger(newLogger(cmd, level+step, format))
	redis.DiscardClientLog()
}

// checkServe refuses flags that contradict each other.
func checkServe(cmd *cobra.Command, o app.Options) error {
	if o.Local && o.BrokersFile == "" {
		return errors.New("--local needs --brokers-file: the file with the CeleryBroker documents to sample")
	}
	if !o.Local && cmd.Flags().Changed("listen") {
		return errors.New("--listen goes with --local; the secure server listens on --bind-address and --secure-port")
	}
	if o.Local && o.Server.Kubeconfig != "" {
		return errors.New("--local serves without a cluster: give either --local or --kubeconfig")
	}
	if o.Local && o.Delegate.URL != "" {
		return errors.New("--delegate is for a cluster, and --local serves without one")
	}
	if err := o.Delegate.Validate("celery-hpa", "celery-hpa."+o.Namespace, "celery-hpa."+o.Namespace+".svc"); err != nil {
		return err
	}
	return checkCertificate(cmd, o)
}

// checkCertificate refuses to say in two ways what to serve with.
func checkCertificate(cmd *cobra.Command, o app.Options) error {
	changed := cmd.Flags().Changed
	switch {
	case o.Certificates.Secret == "" && changed("serving-certificate-lifetime"):
		return errors.New("--serving-certificate-lifetime goes with --serving-secret")
	case o.Certificates.Secret == "":
		return nil
	case o.Local:
		return errors.New("--serving-secret is in a cluster, and --local serves without one, and without certificates")
	case changed("tls-cert-file") || changed("tls-private-key-file") || changed("cert-dir"):
		return errors.New("--serving-secret keeps a certificate; give it or one of your own, with --tls-cert-file and --tls-private-key-file")
	}
	return nil
}
