package localkube

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// layout is everything that the components are told of each other: where their
// files lie and which ports are theirs.
type layout struct {
	dir                                  string
	etcdPort, apiServerPort, managerPort int
}

func (l layout) path(name string) string { return l.dir + "/" + name }

func (l layout) etcdURL() string { return fmt.Sprintf("http://127.0.0.1:%d", l.etcdPort) }

func (l layout) apiServerURL() string { return fmt.Sprintf("https://127.0.0.1:%d", l.apiServerPort) }

func (l layout) managerURL() string { return fmt.Sprintf("https://127.0.0.1:%d", l.managerPort) }

// etcdFlags give up durability, which nobody needs here, for speed. The peer port
// is never used: any free one will do.
func (l layout) etcdFlags() []string {
	return []string{
		"--data-dir=" + l.path("etcd"),
		"--listen-client-urls=" + l.etcdURL(),
		"--advertise-client-urls=" + l.etcdURL(),
		"--listen-peer-urls=http://127.0.0.1:0",
		"--socket-reuse-port",
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func (l layout) apiServerFlags(options Options) []string {
	flags := []string{
		"--etcd-servers=" + l.etcdURL(),
		fmt.Sprintf("--secure-port=%d", l.apiServerPort),
		"--permit-port-sharing",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--client-ca-file=" + l.path(caFile),
		"--tls-cert-file=" + l.path(servingCertFile),
		"--tls-private-key-file=" + l.path(servingKeyFile),
		"--service-account-key-file=" + l.path(tokenPublicFile),
		"--service-account-signing-key-file=" + l.path(tokenPrivateFile),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--requestheader-client-ca-file=" + l.path(proxyCAFile),
		"--requestheader-allowed-names=" + proxyUser,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + l.path(proxyCertFile),
		"--proxy-client-key-file=" + l.path(proxyKeyFile),
	}
	return slices.Concat(flags, l.reachFlags(options.NodeAddress), featureGates(options.FeatureGates), options.APIServerArgs)
}

// reachFlags are for whom the API server is there. On loopback alone two things are
// switched off that it does not allow or need: the endpoints of the service
// "kubernetes" (a loopback address is refused there) and the ServiceAccount admission
// plugin (its token volumes mean nothing to a pod that is a process).
func (l layout) reachFlags(nodeAddress string) []string {
	if nodeAddress == "" {
		return []string{
			"--bind-address=127.0.0.1",
			"--advertise-address=127.0.0.1",
			"--endpoint-reconciler-type=none",
			"--authorization-mode=RBAC",
			"--disable-admission-plugins=ServiceAccount",
		}
	}
	return []string{
		"--bind-address=0.0.0.0",
		"--advertise-address=" + nodeAddress,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		// By default the node's name goes first, which nobody resolves.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + l.path(kubeletCertFile),
		"--kubelet-client-key=" + l.path(kubeletKeyFile),
	}
}

// controllers are those that scaling needs, and those without which namespaces,
// owners, service accounts and the roles view, edit and admin would not behave as
// in a cluster. There is no node lifecycle controller: a node stays as ready as it said
// it was. A real node has all of them.
func controllers(nodeAddress string) []string {
	if nodeAddress != "" {
		return []string{"*"}
	}
	return []string{
		"deployment-controller", "replicaset-controller", "statefulset-controller",
		"horizontal-pod-autoscaler-controller", "serviceaccount-controller",
		"namespace-controller", "garbage-collector-controller",
		"root-ca-certificate-publisher-controller", "clusterrole-aggregation-controller",
	}
}

func (l layout) managerFlags(options Options) []string {
	flags := []string{
		"--kubeconfig=" + l.path(managerKubeconfig),
		fmt.Sprintf("--secure-port=%d", l.managerPort),
		"--permit-port-sharing",
		"--bind-address=127.0.0.1",
		"--tls-cert-file=" + l.path(servingCertFile),
		"--tls-private-key-file=" + l.path(servingKeyFile),
		"--controllers=" + strings.Join(controllers(options.NodeAddress), ","),
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + l.path(tokenPrivateFile),
		"--root-ca-file=" + l.path(caFile),
		"--leader-elect=false",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	}
	return slices.Concat(flags,
		durationFlag("horizontal-pod-autoscaler-sync-period", options.HPASyncPeriod),
		durationFlag("horizontal-pod-autoscaler-downscale-stabilization", options.DownscaleStabilization),
		featureGates(options.FeatureGates), options.ControllerManagerArgs)
}

func durationFlag(name string, value time.Duration) []string {
	if value == 0 {
		return nil
	}
	return []string{fmt.Sprintf("--%s=%s", name, value)}
}

func featureGates(gates map[string]bool) []string {
	if len(gates) == 0 {
		return nil
	}
	var settings []string
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		settings = append(settings, fmt.Sprintf("%s=%t", name, gates[name]))
	}
	return []string{"--feature-gates=" + strings.Join(settings, ",")}
}
