package localkube

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/pki"
)

// Files of a cluster, relative to its folder.
const (
	caFile            = "ca.crt"
	servingCertFile   = "serving.crt"
	servingKeyFile    = "serving.key"
	tokenPublicFile   = "service-account.pub"
	tokenPrivateFile  = "service-account.key"
	proxyCAFile       = "front-proxy-ca.crt"
	proxyCertFile     = "front-proxy.crt"
	proxyKeyFile      = "front-proxy.key"
	kubeletCertFile   = "apiserver-kubelet-client.crt"
	kubeletKeyFile    = "apiserver-kubelet-client.key"
	adminKubeconfig   = "kubeconfig"
	managerKubeconfig = "kube-controller-manager.kubeconfig"
)

// Users that Kubernetes knows by these names: the aggregator towards aggregated
// API servers, the API server towards kubelets, whoever may do everything, and the
// controller manager.
const (
	proxyUser   = "front-proxy-client"
	kubeletUser = "kube-apiserver-kubelet-client"
	adminUser   = "admin"
	adminGroup  = "system:masters"
	managerUser = "system:kube-controller-manager"
)

// writeCredentials makes every key and certificate of a cluster and writes those
// that its components read. The authority of the front proxy is another than the
// cluster's: whoever holds a client certificate of the cluster must not pass for
// the front proxy, which may speak for any user. The API server is reached by the
// address too, if there is one.
func writeCredentials(dir string, ca *pki.Authority, address string) error {
	proxyCA, err := pki.NewAuthority("localkube-front-proxy")
	if err != nil {
		return err
	}
	proxy, err := proxyCA.Client(proxyUser)
	if err != nil {
		return err
	}
	// 10.96.0.1 is the address of the service "kubernetes".
	hosts := []string{"localhost", "127.0.0.1", "kubernetes.default.svc", "10.96.0.1"}
	if address != "" {
		hosts = append(hosts, address)
	}
	serving, err := ca.Server(hosts...)
	if err != nil {
		return err
	}
	kubelet, err := ca.Client(kubeletUser, adminGroup)
	if err != nil {
		return err
	}
	public, private, err := pki.SigningKeys()
	if err != nil {
		return err
	}
	return writeFiles(dir, map[string][]byte{
		caFile:           ca.Cert(),
		servingCertFile:  serving.Cert,
		servingKeyFile:   serving.Key,
		tokenPublicFile:  public,
		tokenPrivateFile: private,
		proxyCAFile:      proxyCA.Cert(),
		proxyCertFile:    proxy.Cert,
		proxyKeyFile:     proxy.Key,
		kubeletCertFile:  kubelet.Cert,
		kubeletKeyFile:   kubelet.Key,
	})
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write the cluster's credentials: %w", err)
		}
	}
	return nil
}

// clientConfig is how a user reaches the API server, with no limit to the rate of
// requests: the one user of this cluster need not be protected from himself.
func clientConfig(server string, ca *pki.Authority, user string, groups ...string) (*rest.Config, error) {
	client, err := ca.Client(user, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: server,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: ca.Cert(), CertData: client.Cert, KeyData: client.Key,
		},
		QPS: -1,
	}, nil
}

// writeKubeconfig writes config as a kubeconfig file with everything in it.
func writeKubeconfig(path string, config *rest.Config) error {
	const name = "localkube"
	content := clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: config.Host, CertificateAuthorityData: config.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
		}},
		Contexts: map[string]*clientcmdapi.Context{name: {
			Cluster: name, AuthInfo: name,
		}},
		CurrentContext: name,
	}
	if err := clientcmd.WriteToFile(content, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
